// Our operators in ONNX Runtime's CUDA provider, on a GPU: results beside the CPU provider's, where
// nodes run, captured graphs. Where this ONNX Runtime has no such provider, or the machine no GPU,
// each test says so and passes.

#include <onnxruntime_cxx_api.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <numeric>
#include <string>
#include <vector>

#include "onnx_io/reader.h"
#include "passes/engine/evaluate.h"
#include "tests/cuda/device_layer.h"
#include "tests/cuda/has_device.h"
#include "tests/cuda/patterns.h"
#include "tests/kernels/plugin_session.h"
#include "tests/support/catch.h"
#include "tests/support/support.h"

namespace sparsefuse::test {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using onnx::TensorProto;

constexpr const char* kCpu = "CPUExecutionProvider";
constexpr const char* kCuda = "CUDAExecutionProvider";
constexpr int64_t kRows[] = {1, 8, 17, 300};

// Says so if there is none, or no GPU.
bool HasProvider() {
  const std::vector<std::string> providers = Ort::GetAvailableProviders();
  if (std::find(providers.begin(), providers.end(), kCuda) == providers.end()) {
    WARN("SKIPPED: this ONNX Runtime (" << OrtGetApiBase()->GetVersionString()
                                        << ") has no CUDA provider");
    return false;
  }
  return HasDevice();
}

enum class Capture { kOff, kGraph };

// Of a session on the first GPU, with the operator library.
Ort::SessionOptions CudaOptions(Capture capture = Capture::kOff) {
  OrtCUDAProviderOptionsV2* cuda = nullptr;
  Ort::ThrowOnError(Ort::GetApi().CreateCUDAProviderOptions(&cuda));
  const std::unique_ptr<OrtCUDAProviderOptionsV2, void (*)(OrtCUDAProviderOptionsV2*)> owned(
      cuda, Ort::GetApi().ReleaseCUDAProviderOptions);
  const char *key = "enable_cuda_graph", *value = capture == Capture::kGraph ? "1" : "0";
  Ort::ThrowOnError(Ort::GetApi().UpdateCUDAProviderOptions(cuda, &key, &value, 1));
  Ort::SessionOptions options;
  options.AppendExecutionProvider_CUDA_V2(*cuda);
  options.RegisterCustomOpsLibrary(SPARSEFUSE_OPS_LIBRARY);
  return options;
}

// How often nodes ran, by operator and provider, while the object lived: by the profile that ONNX
// Runtime writes. A graph that is replayed runs no nodes.
class Profile {
 public:
  void Open(Ort::SessionOptions& options) { options.EnableProfiling((dir_ / "run").c_str()); }
  std::map<std::string, int> Close(Ort::Session& session) {
    const Ort::AllocatorWithDefaultOptions allocator;
    const fs::path file = session.EndProfilingAllocated(allocator).get();
    std::map<std::string, int> runs;
    for (const json& event : json::parse(ReadFile(file))) {
      if (event.value("cat", "") != "Node" || !event["args"].contains("provider")) continue;
      ++runs[event["args"]["op_name"].get<std::string>() + " on " +
             event["args"]["provider"].get<std::string>()];
    }
    return runs;
  }

 private:
  TempDir dir_;
};

using Runs = std::map<std::string, int>;

TEST_CASE("a profile says which provider ran the operators") {
  const LinearLayer layer({64, 40, 0}, 1);
  Profile profile;
  Ort::SessionOptions options = Options(1, SPARSEFUSE_OPS_LIBRARY);
  profile.Open(options);
  Ort::Session session = Load(LayerParts(layer).Model(), options);
  for (int i = 0; i < 3; ++i) Run(session, RandomRows(2, 64, 3), {2, 64});
  REQUIRE(profile.Close(session) == Runs{{std::string("QuantizedLinear8 on ") + kCpu, 3}});
}

// Both providers within the bound of the format's definition, so within twice of each other.
void CheckBothProviders(const LinearLayer& layer, Activation activation, bool half) {
  const LayerParts parts(layer, activation);
  INFO(parts.op << (half ? ", float16" : ", float") << ", K " << layer.shape.inputs << ", G "
                << layer.shape.scale_groups);
  const NodeModel model = parts.Model(half ? TensorProto::FLOAT16 : TensorProto::FLOAT);
  Profile profile;
  Ort::SessionOptions options = CudaOptions();
  profile.Open(options);
  Ort::Session cpu = Load(model), cuda = Load(model, options);
  for (const int64_t rows : kRows) {
    INFO(rows << " rows");
    const int64_t inputs = layer.shape.inputs;
    std::vector<float> x = RandomRows(rows, inputs, 3);
    const auto run = [&](Ort::Session& session) {
      return half ? RunHalf(session, x, {rows, inputs}) : Run(session, x, {rows, inputs});
    };
    const Output of_cpu = run(cpu), of_cuda = run(cuda);
    REQUIRE(of_cuda.dims == of_cpu.dims);
    const Exact exact = ExactLinear(layer, x, rows, {}, activation);
    CheckAgainst(exact, of_cpu.values, half);
    CheckAgainst(exact, of_cuda.values, half);
  }
  REQUIRE(profile.Close(cuda) ==
          Runs{{parts.op + " on " + kCuda, static_cast<int>(std::size(kRows))}});
}

TEST_CASE("CUDA provider: every operator runs there and computes what the CPU's does") {
  if (!HasProvider()) return;
  for (const Encoding encoding : kEncodings) {
    for (const bool sparse : {false, true}) {
      for (const Activation activation : kActivations) {
        const LinearLayer layer({210, 77, 2, encoding, sparse}, 1, activation != Activation::kRelu);
        for (const bool half : {false, true}) CheckBothProviders(layer, activation, half);
      }
    }
  }
}

TEST_CASE("CUDA provider: every pattern of blocks, and no block at all") {
  if (!HasProvider()) return;
  for (const Encoding encoding : kEncodings) {
    for (const Pattern pattern : kPatterns) {
      for (const double density : {0.0, 0.5}) {
        if (pattern == Pattern::kDense && density == 0) continue;
        CheckBothProviders(MakeLayer(encoding, pattern, 516, 260, density, 5), Activation::kNone,
                           false);
      }
    }
  }
}

TEST_CASE("CUDA provider: layers that are told of zeros among their inputs") {
  if (!HasProvider()) return;
  for (const Encoding encoding : {Encoding::kInt8, Encoding::kInt4}) {
    LinearLayer layer({1210, 300, 0, encoding}, 1, true);
    layer.shape.zero_inputs = 1;  // as many as there are: the kernel that skips them runs
    for (const bool half : {false, true}) CheckBothProviders(layer, Activation::kNone, half);
  }
}

TEST_CASE("CUDA provider: easy rows are read in 4 bits where there are few") {
  if (!HasProvider()) return;
  for (const Encoding encoding : {Encoding::kNested1, Encoding::kNested4}) {
    LinearLayer layer({150, 40, 0, encoding}, 1);
    layer.gate = {0, 0, 1, 0};  // every row is easy
    Ort::Session session = Load(LayerParts(layer).Model(), CudaOptions());
    for (const int64_t rows : {1, 8, 9}) {
      INFO("encoding " << static_cast<int>(encoding) << ", " << rows << " rows");
      const std::vector<float> x = RandomRows(rows, 150, 3);
      const std::vector<bool> easy(static_cast<size_t>(rows), rows <= kGatedRows);
      CheckAgainst(ExactLinear(layer, x, rows, easy), Run(session, x, {rows, 150}).values);
    }
  }
}

// X and Y in device memory, at the same addresses in all runs.
class BoundSession {
 public:
  BoundSession(const NodeModel& model, const Ort::SessionOptions& options, int64_t rows,
               const LinearShape& shape)
      : x_(static_cast<size_t>(rows * shape.inputs)),
        y_(static_cast<size_t>(rows * shape.outputs)),
        session_(Load(model, options)),
        binding_(session_) {
    const Ort::MemoryInfo device("Cuda", OrtDeviceAllocator, 0, OrtMemTypeDefault);
    const auto bind = [&](const DeviceArray<float>& array, int64_t width) {
      const int64_t dims[] = {rows, width};
      return Ort::Value::CreateTensor<float>(device, array.get(), static_cast<size_t>(rows * width),
                                             dims, 2);
    };
    binding_.BindInput("X", bind(x_, shape.inputs));
    binding_.BindOutput("Y", bind(y_, shape.outputs));
  }

  std::vector<float> Run(const std::vector<float>& x) {
    SPARSEFUSE_CHECK_CUDA(
        cudaMemcpy(x_.get(), x.data(), x.size() * sizeof(float), cudaMemcpyHostToDevice));
    y_.Fill(0xff);  // NaN
    SPARSEFUSE_CHECK_CUDA(cudaDeviceSynchronize());
    session_.Run(Ort::RunOptions{nullptr}, binding_);
    binding_.SynchronizeOutputs();
    SPARSEFUSE_CHECK_CUDA(cudaDeviceSynchronize());
    return y_.Read();
  }
  Ort::Session& session() { return session_; }

 private:
  DeviceArray<float> x_, y_;
  Ort::Session session_;
  Ort::IoBinding binding_;
};

TEST_CASE("CUDA provider: a captured graph gives the same bits when it is replayed") {
  if (!HasProvider()) return;
  for (const Encoding encoding : kEncodings) {
    for (const bool sparse : {false, true}) {
      const LinearLayer layer({210, 77, 0, encoding, sparse}, 1, true);
      const LayerParts parts(layer);
      const NodeModel model = parts.Model();
      for (const int64_t rows : kRows) {
        INFO(parts.op << ", " << rows << " rows");
        const std::vector<float> x = RandomRows(rows, 210, 3), other = RandomRows(rows, 210, 4);
        Profile profile;
        Ort::SessionOptions options = CudaOptions(Capture::kGraph);
        profile.Open(options);
        BoundSession captured(model, options, rows, layer.shape);
        BoundSession plain(model, CudaOptions(), rows, layer.shape);
        const std::vector<float> y = plain.Run(x), y_other = plain.Run(other);
        CheckAgainst(ExactLinear(layer, x, rows), y);
        constexpr int kReplays = 20;
        REQUIRE(captured.Run(x) == y);
        for (int i = 0; i < kReplays; ++i) {
          REQUIRE(captured.Run(other) == y_other);
          REQUIRE(captured.Run(x) == y);
        }
        const Runs runs = profile.Close(captured.session());
        REQUIRE(runs.size() == 1);
        REQUIRE(runs.begin()->first == parts.op + " on " + kCuda);
        // The first call runs the node a few times and captures it; the others replay.
        REQUIRE(runs.begin()->second < kReplays);
      }
    }
  }
}

TEST_CASE("CUDA provider: a compressed model answers as on the CPU, and benchmark times it") {
  if (!HasProvider()) return;
  const fs::path demo = SourceDir() / "configs/demo";
  const Model original = ReadModel(demo / "model.onnx");
  const Dataset data = Dataset::Load(demo / "evaluation.npz", original);
  std::vector<int64_t> samples(16);
  std::iota(samples.begin(), samples.end(), 0);
  for (const char* weights : {"int8", "int4", "nested"}) {
    INFO(weights);
    const TempDir dir;
    // Nothing is timed: every layer takes the operator, whatever this machine would choose.
    WriteFile(dir / "config.json", std::string(R"({"measure": false, "passes": [
        {"type": "raise-opset"}, {"type": "fold-constants"}, {"type": "remove-dead"},
        {"type": "quantize", "max_flips": 1, "weights": ")") +
                                       weights + "\"}]}");
    const RunResult made =
        RunTool({"compress", "-c", dir / "config.json", "-m", demo / "model.onnx", "-o",
                 dir / "out", "--calibration-data", demo / "calibration.npz"});
    INFO(made.out << made.err);
    REQUIRE(made.exit_code == 0);
    const fs::path model = dir / "out/model.onnx";
    const Session cpu(model, {.threads = 2, .operator_library = SPARSEFUSE_OPS_LIBRARY});
    const Session cuda(
        model, {.threads = 2, .operator_library = SPARSEFUSE_OPS_LIBRARY, .device = Device::kCuda});
    // Float operators round otherwise there, and now and then an activation's code with them: far
    // less than what int8 changes of this model, 0.0004.
    CHECK(CompareModels(cpu, cuda, data, samples).main().Kl() < 1e-4);
    const RunResult timed =
        RunTool({"benchmark", "-m", model, "--device", "cuda", "--batch", "1", "--format", "json",
                 "--operator-library", SPARSEFUSE_OPS_LIBRARY});
    INFO(timed.out << timed.err);
    REQUIRE(timed.exit_code == 0);
    CHECK(json::parse(timed.out)["device"] == "cuda");
  }
}

}  // namespace
}  // namespace sparsefuse::test

// Times QuantizedLinear8 against ONNX Runtime's fp32 MatMul and its own dynamic int8
// (DynamicQuantizeMatMul), whole operators, interleaved, and prints one JSON document.
//
//   bench_linear [--threads N] [--seconds S per point] [--rows 1,8,…] [--shapes 64x64,…]
//
// "op" is the operator library inside ONNX Runtime; "kernel <isa>" each kernel that this CPU runs,
// called directly. With one thread the clock is the thread's CPU time.

#include <time.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "kernels/linear/linear.h"
#include "tests/kernels/layer_model.h"

namespace sparsefuse::test {
namespace {

using nlohmann::ordered_json;

struct Arguments {
  int threads = 1;
  double seconds = 0.4;
  std::vector<int64_t> rows = {1, 8, 64, 128, 512, 1024};
  std::vector<std::array<int64_t, 2>> shapes = {{64, 64},    {64, 172},   {128, 384}, {128, 512},
                                                {192, 576},  {192, 768},  {768, 192}, {256, 1024},
                                                {1024, 256}, {768, 3072}, {3072, 768}};
};

Arguments Parse(int argc, char** argv) {
  Arguments arguments;
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string key = argv[i];
    std::istringstream value(argv[i + 1]);
    std::string item;
    if (key == "--threads") {
      value >> arguments.threads;
    } else if (key == "--seconds") {
      value >> arguments.seconds;
    } else if (key == "--rows") {
      arguments.rows.clear();
      while (std::getline(value, item, ',')) arguments.rows.push_back(std::stoll(item));
    } else if (key == "--shapes") {
      arguments.shapes.clear();
      while (std::getline(value, item, ',')) {
        const size_t cross = item.find('x');
        arguments.shapes.push_back(
            {std::stoll(item.substr(0, cross)), std::stoll(item.substr(cross + 1))});
      }
    } else {
      throw std::runtime_error("unknown argument " + key);
    }
  }
  return arguments;
}

double Now(bool cpu_time) {
  timespec t;
  clock_gettime(cpu_time ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

struct AlignedBytes {
  explicit AlignedBytes(size_t size)
      : bytes(static_cast<std::byte*>(std::aligned_alloc(64, (size + 64) / 64 * 64))) {}
  AlignedBytes(const AlignedBytes&) = delete;
  AlignedBytes& operator=(const AlignedBytes&) = delete;
  ~AlignedBytes() { std::free(bytes); }
  std::byte* bytes;
};

// One contender: runs the operator once.
struct Contender {
  std::string name;
  std::function<void()> run;
  std::vector<double> seconds;
};

// A session with X and Y bound.
class BoundSession {
 public:
  BoundSession(const NodeModel& model, const Ort::SessionOptions& options, std::vector<float>& x,
               int64_t rows, int64_t inputs, std::vector<float>& y, int64_t outputs)
      : bytes_(model.Bytes()),
        session_(Environment(), bytes_.data(), bytes_.size(), options),
        binding_(session_) {
    const Ort::MemoryInfo cpu = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
    const std::array<int64_t, 2> x_dims = {rows, inputs}, y_dims = {rows, outputs};
    binding_.BindInput("X",
                       Ort::Value::CreateTensor<float>(cpu, x.data(), x.size(), x_dims.data(), 2));
    binding_.BindOutput("Y",
                        Ort::Value::CreateTensor<float>(cpu, y.data(), y.size(), y_dims.data(), 2));
  }
  void Run() { session_.Run(Ort::RunOptions{nullptr}, binding_); }

 private:
  std::string bytes_;
  Ort::Session session_;
  Ort::IoBinding binding_;
};

NodeModel Fp32Model(const LinearLayer& layer) {
  NodeModel model("MatMul", "");
  const auto size = static_cast<size_t>(layer.shape.inputs * layer.shape.outputs);
  std::vector<float> w(size);
  for (size_t i = 0; i < size; ++i) w[i] = layer.codes[i] * 0.01f;
  model.Constant("w", onnx::TensorProto::FLOAT, {layer.shape.inputs, layer.shape.outputs}, w);
  return model;
}

NodeModel DynamicInt8Model(const LinearLayer& layer) {
  NodeModel model("DynamicQuantizeMatMul", "com.microsoft");
  const int64_t outputs = layer.shape.outputs;
  const auto count = static_cast<size_t>(outputs);
  model.Constant("w", onnx::TensorProto::INT8, {layer.shape.inputs, outputs}, layer.codes);
  model.Constant("s", onnx::TensorProto::FLOAT, {outputs}, std::vector<float>(count, 0.01f));
  model.Constant("z", onnx::TensorProto::INT8, {outputs}, std::vector<int8_t>(count));
  model.Constant("b", onnx::TensorProto::FLOAT, {outputs}, layer.bias);
  return model;
}

// Rounds of every contender in turn until the time is up; a sample repeats a short run.
void Measure(std::vector<Contender>& contenders, double seconds, bool cpu_time) {
  std::vector<int> repeats;
  for (Contender& c : contenders) {
    c.run();
    const double start = Now(cpu_time);
    c.run();
    repeats.push_back(std::clamp(static_cast<int>(50e-6 / (Now(cpu_time) - start + 1e-9)), 1, 50));
  }
  const double deadline = Now(false) + seconds;
  for (int round = 0; round < 5 || Now(false) < deadline; ++round) {
    for (size_t i = 0; i < contenders.size(); ++i) {
      const double start = Now(cpu_time);
      for (int r = 0; r < repeats[i]; ++r) contenders[i].run();
      contenders[i].seconds.push_back((Now(cpu_time) - start) / repeats[i]);
    }
  }
}

ordered_json Point(const LinearLayer& layer, int64_t rows, const Arguments& arguments) {
  const LinearShape& shape = layer.shape;
  std::vector<float> x = RandomRows(rows, shape.inputs, 7);
  std::vector<float> y(static_cast<size_t>(rows * shape.outputs));
  const auto bind = [&](const NodeModel& model, const std::string& library) {
    return std::make_shared<BoundSession>(model, Options(arguments.threads, library), x, rows,
                                          shape.inputs, y, shape.outputs);
  };
  std::vector<Contender> contenders;
  const auto add_session = [&](const std::string& name, const NodeModel& model,
                               const std::string& library) {
    contenders.push_back({name, [session = bind(model, library)] { session->Run(); }, {}});
  };
  add_session("ort fp32", Fp32Model(layer), "");
  add_session("ort dynamic int8", DynamicInt8Model(layer), "");
  add_session("op", LayerParts(layer).Model(), SPARSEFUSE_OPS_LIBRARY);
  for (const LinearKernel* kernel : AllLinearKernels()) {
    const bool slow =
        !kernel->reads_weights ? false : rows * shape.inputs * shape.outputs > 1 << 24;
    if (!DetectCpuFeatures().Contains(kernel->needs) || slow || arguments.threads != 1) continue;
    auto prepared = std::make_shared<AlignedBytes>(kernel->prepared_bytes(layer.weights()));
    auto workspace = std::make_shared<AlignedBytes>(kernel->workspace_bytes(shape, rows));
    kernel->prepare(layer.weights(), prepared->bytes);
    contenders.push_back({std::string("kernel ") + kernel->name,
                          [=, &layer, &x, &y] {
                            kernel->run(layer.weights(), prepared->bytes,
                                        {.rows = rows,
                                         .x = x.data(),
                                         .y = y.data(),
                                         .workspace = workspace->bytes,
                                         .parallel = SerialLoop()});
                          },
                          {}});
  }
  Measure(contenders, arguments.seconds, arguments.threads == 1);
  ordered_json results;
  const double products = static_cast<double>(rows * shape.inputs * shape.outputs);
  for (Contender& c : contenders) {
    std::sort(c.seconds.begin(), c.seconds.end());
    const double least = c.seconds.front();
    const bool wide = c.name == "ort fp32";
    results[c.name] = {{"min_us", least * 1e6},
                       {"median_us", c.seconds[c.seconds.size() / 2] * 1e6},
                       {"samples", c.seconds.size()},
                       {"gops", 2 * products / least * 1e-9},
                       {"weight_gb_per_s", static_cast<double>(shape.inputs * shape.outputs) *
                                               (wide ? 4 : 1) / least * 1e-9}};
  }
  return {
      {"rows", rows}, {"inputs", shape.inputs}, {"outputs", shape.outputs}, {"results", results}};
}

int Main(int argc, char** argv) {
  const Arguments arguments = Parse(argc, argv);
  std::array<char, 256> features;
  DescribeCpuFeatures(DetectCpuFeatures(), features);
  ordered_json document = {{"cpu", features.data()},
                           {"kernel", SelectLinearKernel()->name},
                           {"onnxruntime", OrtGetApiBase()->GetVersionString()},
                           {"threads", arguments.threads},
                           {"clock", arguments.threads == 1 ? "thread CPU time" : "wall"},
                           {"points", ordered_json::array()}};
  for (const auto& [inputs, outputs] : arguments.shapes) {
    LinearLayer layer({inputs, outputs, 0}, 1);
    BoundPairs(layer);  // as the compressor writes them
    for (int64_t rows : arguments.rows) {
      document["points"].push_back(Point(layer, rows, arguments));
      std::fprintf(stderr, "%lld x %lld, %lld rows\n", static_cast<long long>(inputs),
                   static_cast<long long>(outputs), static_cast<long long>(rows));
    }
  }
  std::printf("%s\n", document.dump(1).c_str());
  return 0;
}

}  // namespace
}  // namespace sparsefuse::test

int main(int argc, char** argv) {
  try {
    return sparsefuse::test::Main(argc, argv);
  } catch (const std::exception& e) {
    std::fprintf(stderr, "bench_linear: %s\n", e.what());
    return 1;
  }
}

// The CUDA provider's operators over an imitated device (fake_device.h): that they hand on what a
// layer is, and whatever goes wrong.

#include <algorithm>
#include <string>
#include <vector>

#include "kernels/plugin/cuda/gate_counts.h"
#include "tests/kernels/cuda/fake_device.h"
#include "tests/kernels/plugin_session.h"
#include "tests/support/catch.h"
#include "tests/support/support.h"

namespace sparsefuse::test {
namespace {

using onnx::TensorProto;

// A device as new, and a check at the end that it got everything back.
class FreshDevice {
 public:
  FreshDevice() { Device() = {}; }
  ~FreshDevice() {
    CHECK(Device().lent.empty());
    CHECK(Device().allocators == 0);
    Device() = {};
  }
};

TEST_CASE("CUDA operators: the whole family computes what the format says") {
  const FreshDevice device;
  for (const Encoding encoding :
       {Encoding::kInt8, Encoding::kInt4, Encoding::kNested1, Encoding::kNested4}) {
    for (const bool sparse : {false, true}) {
      for (const Activation activation : kActivations) {
        const bool smooth = activation != Activation::kRelu;
        const LinearLayer layer({210, 77, 2, encoding, sparse}, 1, smooth);
        const LayerParts parts(layer, activation);
        INFO(parts.op);
        Ort::Session session = LoadOnDevice(parts.Model());
        std::vector<float> x = RandomRows(7, 210, 3);
        CheckAgainst(ExactLinear(layer, x, 7, {}, activation), Run(session, x, {7, 210}).values);
        Ort::Session half = LoadOnDevice(parts.Model(TensorProto::FLOAT16));
        const Output y = RunHalf(half, x, {7, 210});
        CheckAgainst(ExactLinear(layer, x, 7, {}, activation), y.values, true);
      }
    }
  }
}

TEST_CASE("CUDA operators: a sparse layer that stores nothing is no dense one") {
  const FreshDevice device;
  const LinearLayer layer({210, 77, 0, Encoding::kInt8, true}, 1, false, 0.0);
  Ort::Session session = LoadOnDevice(LayerParts(layer).Model());
  const std::vector<float> x = RandomRows(3, 210, 3);
  CheckAgainst(ExactLinear(layer, x, 3), Run(session, x, {3, 210}).values);
}

TEST_CASE("CUDA operators: any leading dimensions, and no launch without rows") {
  const FreshDevice device;
  const LinearLayer layer({40, 50, 0}, 1);
  Ort::Session session = LoadOnDevice(LayerParts(layer).Model());
  const std::vector<float> x = RandomRows(6, 40, 3);
  const Output deep = Run(session, x, {1, 2, 1, 3, 40});
  REQUIRE(deep.dims == std::vector<int64_t>{1, 2, 1, 3, 50});
  CheckAgainst(ExactLinear(layer, x, 6), deep.values);
  REQUIRE(Device().launches == 1);
  REQUIRE(Run(session, {}, {3, 0, 40}).dims == std::vector<int64_t>{3, 0, 50});
  REQUIRE(Device().launches == 1);
}

TEST_CASE("CUDA operators: a run takes the provider's stream and device and waits for nothing") {
  const FreshDevice device;
  const LinearLayer layer({150, 40, 0, Encoding::kNested4}, 1);
  {
    Ort::Session session = LoadOnDevice(LayerParts(layer).Model());
    const int64_t waits = Device().waits, allocations = Device().allocations;
    REQUIRE(Device().lent.size() == 1);
    Device().current = 0;
    Run(session, RandomRows(3, 150, 3), {3, 150});
    REQUIRE(Device().current == kFakeDevice);
    REQUIRE(Device().stream == FakeStream());
    REQUIRE(Device().waits == waits);
    REQUIRE(Device().allocations == allocations);
    REQUIRE(Device().lent.size() == 1);  // the workspace went back
  }
  REQUIRE(Device().lent.empty());
}

TEST_CASE("CUDA operators: what a node says of zeros among its inputs reaches the layer") {
  const FreshDevice device;
  LinearLayer layer({40, 50, 0}, 1);
  LoadOnDevice(LayerParts(layer).Model());
  CHECK(Device().input_words == 0);
  layer.shape.zero_inputs = 0.75f;
  LoadOnDevice(LayerParts(layer).Model());
  CHECK(Device().input_words == 40 * 32);
}

TEST_CASE("CUDA operators: rows read in 4 bits are counted, and read back on demand alone") {
  const FreshDevice device;
  LinearLayer layer({150, 40, 0, Encoding::kNested4}, 1);
  layer.gate = {0, 0, 1, 0};  // every row is easy
  Ort::Session session = LoadOnDevice(LayerParts(layer).Model());
  Ort::Session other = LoadOnDevice(LayerParts(layer).Model());  // the same counts
  int64_t rows = 0, easy = 0, more_rows = 0, more_easy = 0;
  plugin::ReadGateCounts(&rows, &easy);
  CHECK((rows >= 0 && rows < 1000));  // of other tests
  CHECK((easy >= 0 && easy <= rows));
  const int64_t waits = Device().waits;
  const std::vector<float> x = RandomRows(5, 150, 3);
  CheckAgainst(ExactLinear(layer, x, 5, std::vector<bool>(5, true)),
               Run(session, x, {5, 150}).values);
  Run(session, RandomRows(9, 150, 3), {9, 150});  // too many rows to be gated
  REQUIRE(Device().waits == waits);
  plugin::ReadGateCounts(&more_rows, &more_easy);
  CHECK(more_rows - rows == 5);
  CHECK(more_easy - easy == 5);
  Device().failing = "cudaMemcpy";  // as during a capture
  int64_t last_rows = 0, last_easy = 0;
  plugin::ReadGateCounts(&last_rows, &last_easy);
  CHECK(last_easy == more_easy);
}

std::string LoadError(const NodeModel& model) {
  try {
    LoadOnDevice(model);
    return "";
  } catch (const Ort::Exception& e) {
    return e.what();
  }
}

TEST_CASE("CUDA operators: what goes wrong while a kernel is made is said") {
  const FreshDevice device;
  const LinearLayer layer({150, 70, 0, Encoding::kNested4, true}, 1, true);
  const NodeModel model = LayerParts(layer).Model();
  for (const char* function : {"cudaGetDevice", "cudaSetDevice", "SuggestWorkers",
                               "cudaMemcpyAsync", "Prepare", "cudaStreamSynchronize"}) {
    Device() = {};
    Device().failing = function;
    INFO(function);
    REQUIRE_THAT(LoadError(model),
                 Catch::Contains("node \"node\"") && Catch::Contains("a fault (cudaErrorUnknown)"));
    REQUIRE(Device().lent.empty());
    REQUIRE(Device().allocators == 0);
  }
  Device() = {};
  Device().memory = 1000;
  REQUIRE_THAT(LoadError(model), Catch::Contains("on the device: the arena is full"));
  Device() = {};
  Device().constants_there = false;
  REQUIRE_THAT(LoadError(model), Catch::Contains("input weight into the host's memory"));
  Device() = {};
  Device().host_inputs_here = false;
  REQUIRE_THAT(LoadError(model), Catch::Contains("input smooth into a device's memory"));
}

TEST_CASE("CUDA operators: kernels made for a layer are those of the folder that is named") {
  const FreshDevice device;
  const LinearLayer layer({150, 70, 0}, 1);
  const NodeModel model = LayerParts(layer).Model();
  const std::vector<float> x = RandomRows(3, 150, 3);
  const auto run = [&] {
    Ort::Session session = LoadOnDevice(model);
    CheckAgainst(ExactLinear(layer, x, 3), Run(session, x, {3, 150}).values);
  };
  run();
  CHECK_FALSE(Device().made_kernels);
  CHECK(Device().tile_panels == 4);
  const TempDir folder;
  const EnvironmentVariable variable("SPARSEFUSE_CUDA_CODE", folder.path().c_str());
  const std::string file = (folder / "model-sm_86.cubin").string();
  CHECK_THAT(LoadError(model), Catch::Contains(file + " cannot be read") &&
                                   Catch::Contains("compile the model for this device"));
  WriteFile(file, "something else");
  CHECK_THAT(LoadError(model), Catch::Contains("another build of sparsefuse"));
  WriteFile(file, kFakeCode);
  run();
  CHECK(Device().made_kernels);
  CHECK(Device().tile_panels == 2);
  CHECK_FALSE(Device().sought_half);
  LoadOnDevice(LayerParts(layer, Activation::kSilu).Model(TensorProto::FLOAT16));
  CHECK(Device().sought_half);
  CHECK(Device().sought_activation == Activation::kSilu);
  WriteFile(file, "something else");
  run();  // loaded once
  CHECK(Device().made_kernels);
  Device().failing = "FindDevice";
  CHECK_THAT(LoadError(model), Catch::Contains("a fault (cudaErrorUnknown)"));
}

TEST_CASE("CUDA operators: every input but X must be an initializer") {
  const FreshDevice device;
  const LinearLayer layer({150, 70, 0, Encoding::kNested4, true}, 1, true);
  for (int i = 1; i < 8; ++i) {
    NodeModel model = LayerParts(layer).Model();
    const std::string name = model.node().input(i);
    INFO(name);
    // A graph input with a default: another value may come at any run.
    onnx::ValueInfoProto& input = *model.model().mutable_graph()->add_input();
    input.set_name(name);
    input.mutable_type()->mutable_tensor_type()->set_elem_type(
        model.model().graph().initializer(i - 1).data_type());
    REQUIRE_THAT(LoadError(model), Catch::Contains("input " + name + " is no initializer"));
  }
}

TEST_CASE("CUDA operators: what goes wrong in a run is said, and the workspace goes back") {
  const FreshDevice device;
  const LinearLayer layer({64, 40, 0}, 1);
  Ort::Session session = LoadOnDevice(LayerParts(layer).Model());
  const std::vector<float> x = RandomRows(3, 64, 3);
  const auto error = [&] {
    try {
      Run(session, x, {3, 64});
      return std::string();
    } catch (const Ort::Exception& e) {
      return std::string(e.what());
    }
  };
  Device().failing = "Linear";
  REQUIRE_THAT(error(), Catch::Contains("launching its kernels: a fault (cudaErrorUnknown)"));
  REQUIRE(Device().lent.size() == 1);
  Device().failing = "scratch";
  REQUIRE_THAT(error(), Catch::Contains("no memory for a workspace"));
  Device().failing = "";
  REQUIRE(error() == "");
}

TEST_CASE("CUDA operators: addresses that a kernel cannot read or write are refused") {
  const FreshDevice device;
  const LinearLayer layer({64, 40, 0}, 1);
  Ort::Session session = LoadOnDevice(LayerParts(layer).Model());
  alignas(16) std::array<float, 3 * 64 + 4> x{};
  alignas(16) std::array<float, 3 * 40 + 4> y{};
  const auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
  const auto error = [&](size_t x_start, size_t y_start) {
    const int64_t x_dims[] = {3, 64}, y_dims[] = {3, 40};
    const auto input =
        Ort::Value::CreateTensor<float>(memory, x.data() + x_start, 3 * 64, x_dims, 2);
    auto output = Ort::Value::CreateTensor<float>(memory, y.data() + y_start, 3 * 40, y_dims, 2);
    const char *in = "X", *out = "Y";
    try {
      session.Run({}, &in, &input, 1, &out, &output, 1);
      return std::string();
    } catch (const Ort::Exception& e) {
      return std::string(e.what());
    }
  };
  REQUIRE(error(0, 0) == "");
  REQUIRE_THAT(error(1, 0), Catch::Contains("input X is at address 0x"));
  REQUIRE_THAT(error(0, 2), Catch::Contains("output Y is at address 0x"));
  REQUIRE(Device().launches == 1);
  REQUIRE(error(4, 4) == "");
}

}  // namespace
}  // namespace sparsefuse::test

// The operator library inside ONNX Runtime: results against the format's definition.

#include <dlfcn.h>

#include <array>
#include <cmath>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "tests/kernels/plugin_session.h"
#include "tests/support/catch.h"

namespace sparsefuse::test {
namespace {

using onnx::TensorProto;

TEST_CASE("the library computes what the format says") {
  for (int64_t scale_groups : {0, 2}) {
    for (bool smooth : {false, true}) {
      const LinearLayer layer({300, 77, scale_groups}, 1, smooth);
      Ort::Session session = Load(LayerParts(layer).Model(), 2);
      for (int64_t rows : {1, 6, 40}) {
        const std::vector<float> x = RandomRows(rows, 300, 3);
        const Output y = Run(session, x, {rows, 300});
        REQUIRE(y.dims == std::vector<int64_t>{rows, 77});
        CheckAgainst(ExactLinear(layer, x, rows), y.values);
      }
    }
  }
}

TEST_CASE("any leading dimensions, also none and empty ones") {
  const LinearLayer layer({40, 50, 0}, 1);
  Ort::Session session = Load(LayerParts(layer).Model());
  const std::vector<float> x = RandomRows(6, 40, 3);
  const Exact exact = ExactLinear(layer, x, 6);
  CheckAgainst(exact, Run(session, x, {6, 40}).values);
  const Output deep = Run(session, x, {1, 2, 1, 3, 1, 1, 1, 1, 40});
  REQUIRE(deep.dims == std::vector<int64_t>{1, 2, 1, 3, 1, 1, 1, 1, 50});
  CheckAgainst(exact, deep.values);
  const Output vector = Run(session, {x.begin(), x.begin() + 40}, {40});
  REQUIRE(vector.dims == std::vector<int64_t>{50});
  REQUIRE(std::equal(vector.values.begin(), vector.values.end(), deep.values.begin()));
  REQUIRE(Run(session, {}, {0, 40}).dims == std::vector<int64_t>{0, 50});
  REQUIRE(Run(session, {}, {3, 0, 7, 40}).dims == std::vector<int64_t>{3, 0, 7, 50});
}

TEST_CASE("float16 activations") {
  const LinearLayer layer({90, 33, 0}, 1, true);
  Ort::Session session = Load(LayerParts(layer).Model(TensorProto::FLOAT16));
  std::vector<float> x = RandomRows(5, 90, 3);
  const Output y = RunHalf(session, x, {5, 90});
  CheckAgainst(ExactLinear(layer, x, 5), y.values, true);
}

TEST_CASE("large runs are the same on one thread and on many") {
  const LinearLayer layer({700, 900, 0}, 1);
  Ort::Session one = Load(LayerParts(layer).Model(), 1), many = Load(LayerParts(layer).Model(), 5);
  for (int64_t rows : {1, 7, 100, 700}) {
    const std::vector<float> x = RandomRows(rows, 700, 3);
    REQUIRE(Run(one, x, {rows, 700}).values == Run(many, x, {rows, 700}).values);
  }
}

TEST_CASE("one session, many threads at once") {
  const LinearLayer layer({200, 130, 0}, 1);
  Ort::Session session = Load(LayerParts(layer).Model(), 2);
  std::array<bool, 6> right{};
  std::vector<std::thread> threads;
  for (size_t t = 0; t < right.size(); ++t) {
    threads.emplace_back([&, t] {
      const auto rows = static_cast<int64_t>(t * 13 + 1);
      const std::vector<float> x = RandomRows(rows, 200, static_cast<uint32_t>(t));
      const std::vector<float> first = Run(session, x, {rows, 200}).values;
      const Exact exact = ExactLinear(layer, x, rows);
      right[t] = true;
      for (size_t i = 0; i < first.size(); ++i) {
        right[t] = right[t] && std::fabs(first[i] - exact.y[i]) <= exact.bound[i];
      }
      for (int round = 0; round < 30; ++round) {
        right[t] = right[t] && Run(session, x, {rows, 200}).values == first;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (bool r : right) REQUIRE(r);
}

TEST_CASE("shape inference says the last dimension") {
  const LinearLayer layer({64, 50, 0}, 1);
  NodeModel model = LayerParts(layer).Model();
  auto& shape = *model.model()
                     .mutable_graph()
                     ->mutable_input(0)
                     ->mutable_type()
                     ->mutable_tensor_type()
                     ->mutable_shape();
  shape.add_dim()->set_dim_param("batch");
  shape.add_dim()->set_dim_value(7);
  shape.add_dim()->set_dim_value(64);
  Ort::Session session = Load(model);
  const auto type = session.GetOutputTypeInfo(0);
  REQUIRE(type.GetTensorTypeAndShapeInfo().GetShape() == std::vector<int64_t>{-1, 7, 50});
}

TEST_CASE("the whole family is there: every encoding, dense and sparse, every activation") {
  for (const Encoding encoding :
       {Encoding::kInt8, Encoding::kInt4, Encoding::kNested1, Encoding::kNested4}) {
    for (const bool sparse : {false, true}) {
      for (const Activation activation : kActivations) {
        for (const int64_t scale_groups : {0, 2}) {
          const LinearLayer layer({210, 77, scale_groups, encoding, sparse}, 1, true);
          const LayerParts parts(layer, activation);
          INFO(parts.op << ", G " << scale_groups);
          Ort::Session session = Load(parts.Model(), 2);
          const std::vector<float> x = RandomRows(7, 210, 3);
          CheckAgainst(ExactLinear(layer, x, 7, {}, activation), Run(session, x, {7, 210}).values);
        }
      }
    }
  }
}

class GateVariable {
 public:
  explicit GateVariable(const char* value) { setenv("SPARSEFUSE_GATE", value, 1); }
  ~GateVariable() { unsetenv("SPARSEFUSE_GATE"); }
};

TEST_CASE("SPARSEFUSE_GATE says when rows may be read in 4 bits") {
  LinearLayer layer({150, 40, 0, Encoding::kNested4}, 1);
  layer.gate = {0, 0, 1, 0};  // every row is easy
  const std::vector<float> x = RandomRows(20, 150, 3);
  const auto is_easy = [&](int64_t rows) {
    Ort::Session session = Load(LayerParts(layer).Model());
    const std::vector<float> some(x.begin(), x.begin() + rows * 150);
    const std::vector<float> y = Run(session, some, {rows, 150}).values;
    const bool easy = std::fabs(y[0] - ExactLinear(layer, some, rows).y[0]) > 1e-3;
    CheckAgainst(ExactLinear(layer, some, rows, std::vector<bool>(20, easy)), y);
    return easy;
  };
  CHECK(is_easy(8));
  CHECK_FALSE(is_easy(9));
  {
    const GateVariable off("off");
    CHECK_FALSE(is_easy(1));
  }
  {
    const GateVariable always("always");
    CHECK(is_easy(20));
  }
  const Ort::Session keeps_it_loaded = Load(LayerParts(layer).Model());
  void* library = dlopen(SPARSEFUSE_OPS_LIBRARY, RTLD_NOW | RTLD_NOLOAD);
  REQUIRE(library);
  auto* count =
      reinterpret_cast<void (*)(int64_t*, int64_t*)>(dlsym(library, "SparsefuseGateCounts"));
  REQUIRE(count);
  int64_t rows = 0, easy = 0, more_rows = 0, more_easy = 0;
  count(&rows, &easy);
  is_easy(5);
  is_easy(9);  // not gated
  count(&more_rows, &more_easy);
  CHECK(more_rows - rows == 5);
  CHECK(more_easy - easy == 5);
  dlclose(library);
  const GateVariable wrong("sometimes");
  REQUIRE_THROWS_WITH(Load(LayerParts(layer).Model()),
                      Catch::Contains("SPARSEFUSE_GATE=sometimes is none of off, decode, always"));
}

// --- Weights that are no initializers
// ---------------------------------------------------------------

// Turns the constant into a graph input, with its value kept as a default or not.
void MakeInput(NodeModel& model, const std::string& name, TensorProto::DataType type, bool keep) {
  onnx::GraphProto& graph = *model.model().mutable_graph();
  onnx::ValueInfoProto& input = *graph.add_input();
  input.set_name(name);
  input.mutable_type()->mutable_tensor_type()->set_elem_type(type);
  for (int i = 0; i < graph.initializer_size() && !keep; ++i) {
    if (graph.initializer(i).name() == name) {
      graph.mutable_initializer()->DeleteSubrange(i, 1);
      return;
    }
  }
}

TEST_CASE("weights given at run time are checked and prepared each time") {
  const LinearLayer first({100, 40, 0}, 1), second({100, 40, 0}, 2);
  for (bool keep : {true, false}) {
    NodeModel model = LayerParts(first).Model();
    MakeInput(model, "weight", TensorProto::INT8, keep);
    Ort::Session session = Load(model);
    std::vector<float> x = RandomRows(9, 100, 3);
    const char* names[] = {"X", "weight"};
    const char* out = "Y";
    const auto run = [&](const std::vector<std::byte>& bytes, const std::vector<int64_t>& dims) {
      std::vector<int8_t> weight(bytes.size());
      std::memcpy(weight.data(), bytes.data(), bytes.size());
      std::array<Ort::Value, 2> inputs = {Tensor(x, {9, 100}), Tensor(weight, dims)};
      std::vector<Ort::Value> y = session.Run({}, names, inputs.data(), 2, &out, 1);
      const float* data = y[0].GetTensorData<float>();
      return std::vector<float>(data, data + 9 * 40);
    };
    const std::vector<int64_t> dims = {4, 32, 16, 4};
    CheckAgainst(ExactLinear(first, x, 9), run(first.packed, dims));
    LinearLayer other = first;  // the second's weights with the first's scales and bias
    other.codes = second.codes;
    CheckAgainst(ExactLinear(other, x, 9), run(second.packed, dims));
    std::vector<std::byte> shorter(second.packed.begin(), second.packed.end() - 2048);
    REQUIRE_THROWS_AS(run(shorter, {3, 32, 16, 4}), Ort::Exception);
    REQUIRE_THROWS_AS(run(second.packed, {8192}), Ort::Exception);
    CheckAgainst(ExactLinear(first, x, 9), run(first.packed, dims));
  }
}

TEST_CASE("the library loads alone, exports one symbol, and can be loaded again and again") {
  for (int i = 0; i < 50; ++i) {
    void* library = dlopen(SPARSEFUSE_OPS_LIBRARY, RTLD_NOW | RTLD_LOCAL);
    REQUIRE(library);
    REQUIRE(dlsym(library, "RegisterCustomOps"));
    dlclose(library);
  }
  const LinearLayer layer({64, 32, 0}, 1);
  for (int i = 0; i < 20; ++i) {
    Ort::Session session = Load(LayerParts(layer).Model());
    Run(session, RandomRows(1, 64, 1), {1, 64});
  }
}

TEST_CASE("an ONNX Runtime too old for the library gets a status") {
  void* library = dlopen(SPARSEFUSE_OPS_LIBRARY, RTLD_NOW | RTLD_LOCAL);
  REQUIRE(library);
  const auto register_ops = reinterpret_cast<OrtStatus* (*)(OrtSessionOptions*, const OrtApiBase*)>(
      dlsym(library, "RegisterCustomOps"));
  static constexpr OrtApiBase kOld = {[](uint32_t version) noexcept -> const OrtApi* {
                                        return version <= 12 ? OrtGetApiBase()->GetApi(version)
                                                             : nullptr;
                                      },
                                      []() noexcept { return "1.12.0"; }};
  const Ort::SessionOptions options;
  OrtStatus* status = register_ops(
      const_cast<OrtSessionOptions*>(static_cast<const OrtSessionOptions*>(options)), &kOld);
  REQUIRE(status);
  REQUIRE(std::string(Ort::GetApi().GetErrorMessage(status)).find("this is 1.12.0") !=
          std::string::npos);
  Ort::GetApi().ReleaseStatus(status);
  dlclose(library);
}

}  // namespace
}  // namespace sparsefuse::test

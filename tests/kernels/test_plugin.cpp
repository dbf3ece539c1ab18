// The operator library inside ONNX Runtime: results against the format's definition, and models
// that lie, which must end in an error and nothing else.

#include <dlfcn.h>

#include <array>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <string>
#include <thread>
#include <vector>

#include "kernels/base/float16.h"
#include "tests/kernels/layer_model.h"
#include "tests/support/catch.h"

namespace sparsefuse::test {
namespace {

using onnx::TensorProto;

Ort::Session Load(const NodeModel& model, int threads = 1) {
  const std::string bytes = model.Bytes();
  return {Environment(), bytes.data(), bytes.size(), Options(threads, SPARSEFUSE_OPS_LIBRARY)};
}

template <typename T>
Ort::Value Tensor(std::vector<T>& values, const std::vector<int64_t>& dims) {
  static const Ort::MemoryInfo cpu =
      Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
  return Ort::Value::CreateTensor<T>(cpu, values.data(), values.size(), dims.data(), dims.size());
}

struct Output {
  std::vector<float> values;
  std::vector<int64_t> dims;
};

Output Run(Ort::Session& session, std::vector<float> x, const std::vector<int64_t>& dims) {
  const Ort::Value input = Tensor(x, dims);
  const char *in = "X", *out = "Y";
  std::vector<Ort::Value> y = session.Run({}, &in, &input, 1, &out, 1);
  const auto info = y[0].GetTensorTypeAndShapeInfo();
  const float* data = y[0].GetTensorData<float>();
  return {{data, data + info.GetElementCount()}, info.GetShape()};
}

void CheckAgainst(const Exact& exact, const std::vector<float>& y) {
  REQUIRE(y.size() == exact.y.size());
  for (size_t i = 0; i < y.size(); ++i) {
    INFO("element " << i);
    REQUIRE(std::fabs(y[i] - exact.y[i]) <= exact.bound[i]);
  }
}

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
  std::vector<Ort::Float16_t> half(x.size());
  for (size_t i = 0; i < x.size(); ++i) {
    half[i] = Ort::Float16_t::FromBits(FloatToFloat16(x[i]));
    x[i] = Float16ToFloat(half[i].val);
  }
  const Ort::Value input = Tensor(half, {5, 90});
  const char *in = "X", *out = "Y";
  const std::vector<Ort::Value> y = session.Run({}, &in, &input, 1, &out, 1);
  REQUIRE(y[0].GetTensorTypeAndShapeInfo().GetElementType() ==
          ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16);
  const Exact exact = ExactLinear(layer, x, 5);
  for (size_t i = 0; i < exact.y.size(); ++i) {
    const float value = Float16ToFloat(y[0].GetTensorData<Ort::Float16_t>()[i].val);
    REQUIRE(std::fabs(value - exact.y[i]) <=
            exact.bound[i] + std::fabs(exact.y[i]) * 0x1p-11 + 0x1p-25);
  }
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

// --- Models that lie
// --------------------------------------------------------------------------------

// The error that loading gives, or "" if it loads.
std::string LoadError(const NodeModel& model) {
  try {
    Load(model);
    return "";
  } catch (const Ort::Exception& e) {
    return e.what();
  }
}

void RemoveAttribute(NodeModel& model, const std::string& name) {
  auto& attributes = *model.node().mutable_attribute();
  for (int i = 0; i < attributes.size(); ++i) {
    if (attributes[i].name() == name) return attributes.DeleteSubrange(i, 1);
  }
}

TEST_CASE("attributes: missing, of another type, out of range") {
  const LinearLayer layer({100, 40, 0}, 1);
  const LayerParts parts(layer);
  REQUIRE(LoadError(parts.Model()) == "");
  for (const char* name : {"K", "N", "scale_groups", "layout"}) {
    INFO(name);
    NodeModel model = parts.Model();
    RemoveAttribute(model, name);
    REQUIRE(LoadError(model).find(name) != std::string::npos);
    REQUIRE(LoadError(model.Float(name, 1)).find(name) != std::string::npos);
    for (int64_t value : {int64_t{-1}, int64_t{0}, int64_t{1}, int64_t{63}, int64_t{129},
                          int64_t{1} << 24, (int64_t{1} << 24) + 1, int64_t{65536}, int64_t{65537},
                          int64_t{1} << 31, int64_t{1} << 32, std::numeric_limits<int64_t>::min(),
                          std::numeric_limits<int64_t>::max()}) {
      NodeModel changed = parts.Model();
      RemoveAttribute(changed, name);
      const bool harmless = (std::string(name) == "layout" && value == 1) ||
                            (std::string(name) == "scale_groups" && value >= 0 && value <= 1024 &&
                             value != 1);  // ≥ 2 groups: one row of scales, as with 0
      INFO(value);
      REQUIRE((LoadError(changed.Int(name, value)) == "") == harmless);
    }
  }
  for (float value : {0.0f, -1.0f, INFINITY, std::nanf("")}) {
    NodeModel model = parts.Model();
    RemoveAttribute(model, "scale_base");
    REQUIRE(LoadError(model.Float("scale_base", value)).find("scale_base") != std::string::npos);
  }
  NodeModel model = parts.Model();
  RemoveAttribute(model, "scale_base");
  REQUIRE(LoadError(model).find("scale_base") != std::string::npos);
  REQUIRE(LoadError(model.Int("scale_base", 1)).find("scale_base") != std::string::npos);
  NodeModel newer = parts.Model();
  RemoveAttribute(newer, "layout");
  REQUIRE(LoadError(newer.Int("layout", 2)).find("newer library") != std::string::npos);
}

TEST_CASE("constants: one element less, one more, another rank, another type") {
  const LinearLayer layer({100, 40, 0}, 1);
  const std::vector<std::vector<int64_t> LayerParts::*> members = {
      &LayerParts::weight_dims, &LayerParts::scale_dims, &LayerParts::bias_dims,
      &LayerParts::smooth_dims};
  const std::vector<std::string> names = {"weight", "scale_code", "bias", "smooth"};
  for (size_t i = 0; i < members.size(); ++i) {
    INFO(names[i]);
    const auto broken = [&](const std::function<void(std::vector<int64_t>&)>& change) {
      LayerParts parts(layer);
      change(parts.*members[i]);
      return LoadError(parts.Model());
    };
    REQUIRE(broken([](auto& dims) { dims[0] -= 1; }).find(names[i]) != std::string::npos);
    REQUIRE(broken([](auto& dims) { dims[0] += 1; }).find(names[i]) != std::string::npos);
    REQUIRE(broken([](auto& dims) { dims.back() -= 1; }).find(names[i]) != std::string::npos);
    REQUIRE(broken([](auto& dims) { dims.push_back(1); }).find(names[i]) != std::string::npos);
    REQUIRE(broken([](auto& dims) { dims[0] = 0; }).find(names[i]) != std::string::npos);
    REQUIRE(broken([](auto& dims) { dims.clear(); }).find(names[i]) != std::string::npos);
    NodeModel typed = LayerParts(layer).Model();
    for (auto& tensor : *typed.model().mutable_graph()->mutable_initializer()) {
      if (tensor.name() != names[i]) continue;
      const bool bytes = tensor.data_type() != TensorProto::FLOAT;
      tensor.set_data_type(bytes ? TensorProto::BOOL : TensorProto::INT32);
    }
    REQUIRE(LoadError(typed) != "");
  }
}

// One number of a constant at a time: what says where blocks are, and how long the gate is.
TEST_CASE("lists of blocks and gates that lie are refused") {
  LinearLayer layer({100, 70, 0, Encoding::kNested1, true}, 1);
  layer.gate = {1, 0, 0, 2};
  layer.gate.resize(4 + 2 * 100);
  REQUIRE(LoadError(LayerParts(layer).Model()) == "");
  const auto refused = [&](const std::function<void(LinearLayer&)>& change,
                           const std::string& why) {
    LayerParts parts(layer);
    change(parts.layer);
    const std::string error = LoadError(parts.Model());
    INFO(error);
    return error.find(why) != std::string::npos;
  };
  for (const int value : {26, 27, 255, 65535}) {
    for (const size_t i : {size_t{0}, size_t{3}, layer.quad.size() - 1}) {
      if (value == 25 && i == layer.quad.size() - 1) continue;
      CHECK(refused([&](LinearLayer& l) { l.quad[i] = static_cast<uint16_t>(value); }, "blocks: "));
    }
  }
  for (const int32_t value : {-1, 1, 1000000, INT32_MIN, INT32_MAX}) {
    CHECK(refused([&](LinearLayer& l) { l.group_ptr[0] = value; }, "group_ptr"));
  }
  for (const int32_t value : {-1, 1000000, INT32_MIN, INT32_MAX}) {
    for (const size_t i : {size_t{1}, size_t{2}, size_t{3}}) {
      CHECK(refused([&](LinearLayer& l) { l.group_ptr[i] = value; }, ""));
    }
  }
  for (const float value : {-1.0f, 0.5f, 3.0f, 1.0f, 1e9f, 3e38f, INFINITY, NAN}) {
    CHECK(refused([&](LinearLayer& l) { l.gate[3] = value; }, "gate"));
  }
  const auto broken = [&](std::vector<int64_t> LayerParts::*member, auto change) {
    LayerParts parts(layer);
    change(parts.*member);
    return !LoadError(parts.Model()).empty();
  };
  for (const auto member :
       {&LayerParts::weight_dims, &LayerParts::scale_dims, &LayerParts::gate_dims,
        &LayerParts::quad_dims, &LayerParts::group_ptr_dims}) {
    CHECK(broken(member, [](auto& dims) { dims.back() -= 1; }));
    CHECK(broken(member, [](auto& dims) { dims.back() += 1; }));
    CHECK(broken(member, [](auto& dims) { dims.push_back(1); }));
    CHECK(broken(member, [](auto& dims) { dims.clear(); }));
    CHECK(broken(member, [](auto& dims) { dims = {0}; }));
  }
  CHECK(broken(&LayerParts::weight_dims, [](auto& dims) { dims[1] = 100000; }));
}

TEST_CASE("inputs: too few, too many, absent") {
  const LinearLayer layer({100, 40, 0}, 1);
  NodeModel few = LayerParts(layer).Model();
  few.node().mutable_input()->RemoveLast();
  REQUIRE(LoadError(few) != "");
  NodeModel many = LayerParts(layer).Model();
  many.node().add_input("bias");
  REQUIRE(LoadError(many) != "");
  for (int i = 1; i < 5; ++i) {
    INFO(i);
    NodeModel absent = LayerParts(layer).Model();
    absent.node().set_input(i, "");
    std::string error = LoadError(absent);
    if (error.empty()) {  // ONNX Runtime lets it pass: then the run must fail
      Ort::Session session = Load(absent);
      REQUIRE_THROWS_AS(Run(session, RandomRows(1, 100, 1), {1, 100}), Ort::Exception);
    }
  }
}

TEST_CASE("X of another last dimension, rank or size is refused at run time") {
  const LinearLayer layer({100, 40, 0}, 1);
  Ort::Session session = Load(LayerParts(layer).Model());
  const auto refused = [&](const std::vector<int64_t>& dims, const std::string& why) {
    int64_t count = 1;
    for (int64_t dim : dims) count *= dim;
    try {
      Run(session, std::vector<float>(static_cast<size_t>(count)), dims);
      return false;
    } catch (const Ort::Exception& e) {
      return std::string(e.what()).find(why) != std::string::npos;
    }
  };
  REQUIRE(refused({2, 99}, "last dimension 99, expected K = 100"));
  REQUIRE(refused({2, 101}, "last dimension 101"));
  REQUIRE(refused({100, 1}, "last dimension 1"));
  REQUIRE(refused({100, 0}, "last dimension 0"));
  REQUIRE(refused({}, "scalar"));
  REQUIRE(refused(std::vector<int64_t>(40, 1), "rank"));
}

TEST_CASE("hostile numbers in the constants stay numbers") {
  LinearLayer layer({100, 40, 0}, 1);
  layer.scale_base = std::numeric_limits<float>::max();
  layer.bias[0] = NAN;
  layer.bias[1] = INFINITY;
  layer.smooth.assign(100, 1);
  layer.smooth[99] = NAN;
  for (std::byte& b : layer.packed) b = std::byte{128};
  Ort::Session session = Load(LayerParts(layer).Model());
  for (float v : Run(session, RandomRows(9, 100, 1), {9, 100}).values) REQUIRE(std::isnan(v));
}

TEST_CASE("names from the model cannot break an error message") {
  const LinearLayer layer({100, 40, 0}, 1);
  NodeModel model = LayerParts(layer).Model();
  model.node().set_name(std::string(3000, 'x') + "%s%n\x1b[31m\n");
  RemoveAttribute(model, "K");
  REQUIRE(LoadError(model).find("\"K\"") == std::string::npos);
  REQUIRE(LoadError(model).find("K") != std::string::npos);
  model.node().set_name("a%s%n\x1b[31m\nb");
  const std::string error = LoadError(model);
  REQUIRE(error.find("node \"a%s%n?[31m?b\"") != std::string::npos);
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

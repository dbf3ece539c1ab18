#include "passes/engine/engine.h"

#include <cstring>
#include <string>

#include "onnx_io/text.h"
#include "onnx_io/writer.h"
#include "tests/support/catch.h"
#include "tests/support/support.h"

namespace sparsefuse {
namespace {

using test::TempDir;

const char kLinear[] = R"(<ir_version: 8, opset_import: ["" : 17]>
g (float[N,2] x) => (float[N,2] y)
<float[2,2] w = {1, 2, 3, 4}, float[2] b = {10, 20}>
{ p = MatMul(x, w)
  y = Add(p, b) })";

Feeds One(const std::string& name, Tensor tensor) { return {{name, std::move(tensor)}}; }

Tensor Floats(Dims dims, std::vector<float> values) { return Tensor::Of(std::move(dims), values); }

const ValueType& TypeOf(const std::vector<Port>& ports, const std::string& name) {
  for (const Port& port : ports) {
    if (port.name == name) return port.type;
  }
  throw std::runtime_error("no type of " + name);
}

TEST_CASE("a model runs from memory and from its file") {
  const TempDir dir;
  const Model model = ModelFromText(kLinear);
  WriteModel(model, dir / "m.onnx");
  const Feeds feeds = One("x", Floats({2, 2}, {1, 0, 0, 2}));
  for (const bool from_file : {false, true}) {
    const Session session =
        from_file ? Session(dir / "m.onnx", SessionOptions{}) : Session(model, SessionOptions{});
    const std::vector<Tensor> outputs = session.Run(feeds);
    REQUIRE(outputs.size() == 1);
    CHECK(outputs[0].dims() == Dims{2, 2});
    CHECK(outputs[0].ToFloats() == std::vector<float>{11, 22, 16, 28});
  }
}

TEST_CASE("ports have ONNX Runtime's types") {
  const Session session(ModelFromText(kLinear), {});
  REQUIRE(session.inputs().size() == 1);
  CHECK(session.inputs()[0].name == "x");
  const ValueType& type = session.outputs()[0].type;
  CHECK(type.dtype == DType::kFloat);
  REQUIRE(type.dims.size() == 2);
  CHECK(std::get<std::string>(type.dims[0]) == "N");
  CHECK(std::get<int64_t>(type.dims[1]) == 2);
}

TEST_CASE("outputs are chosen by name, in the order asked for") {
  const Session session(ModelFromText(R"(<ir_version: 8, opset_import: ["" : 17]>
g (float[2] x) => (float[2] a, float[2] b) { a = Neg(x) b = Abs(x) })"),
                        {});
  const std::vector<std::string> names = {"b", "a"};
  const std::vector<Tensor> outputs =
      session.Run({{"x", Floats({2}, {1, -2})}, {"unknown", Floats({1}, {0})}}, names);
  REQUIRE(outputs.size() == 2);
  CHECK(outputs[0].ToFloats() == std::vector<float>{1, 2});
  CHECK(outputs[1].ToFloats() == std::vector<float>{-1, 2});
}

// A weight larger than what travels inside the serialized model.
Model Large(float first) {
  std::vector<float> weight(1024, 1);
  weight[0] = first;
  Model model = ModelFromText(R"(<ir_version: 8, opset_import: ["" : 17]>
g (float[1024] x) => (float[1024] y) { y = Identity(x) })");
  Graph& graph = model.graph();
  Value* w = graph.AddInitializer("w", Tensor::Of({1024}, weight));
  Node* old = graph.Nodes()[0];
  Node* mul =
      graph.AddNode({.op = "Mul", .inputs = {graph.inputs()[0], w}, .outputs = {"product"}});
  graph.MoveOutput(graph.outputs()[0], mul, 0);
  graph.RemoveNode(old);
  return model;
}

TEST_CASE("weights are read in place and outlive the model") {
  auto model = std::make_unique<Model>(Large(3));
  const Session session(*model, {});
  model.reset();
  const std::vector<float> result =
      session.Run(One("x", Tensor::Of({1024}, std::vector<float>(1024, 2))))[0].ToFloats();
  CHECK(result[0] == 6);
  CHECK(result[1023] == 2);
}

// Bytes at an odd address, as in a mapped file.
class Shifted final : public Storage {
 public:
  explicit Shifted(const Tensor& tensor) : bytes_(tensor.bytes().size() + 65) {
    const auto address = reinterpret_cast<uintptr_t>(bytes_.data());
    shift_ = 64 - address % 64 + 1;
    std::memcpy(bytes_.data() + shift_, tensor.bytes().data(), tensor.bytes().size());
  }
  std::span<const std::byte> bytes() const noexcept override {
    return std::span(bytes_).subspan(shift_, bytes_.size() - 65);
  }

 private:
  std::vector<std::byte> bytes_;
  size_t shift_;
};

TEST_CASE("weights and feeds may lie at any address") {
  Model model = Large(3);
  Value* w = model.graph().FindValue("w");
  w->set_initializer(Tensor(DType::kFloat, {1024}, std::make_shared<Shifted>(*w->initializer())));
  const Tensor x = Tensor::Of({1024}, std::vector<float>(1024, 5));
  const Tensor odd(DType::kFloat, {1024}, std::make_shared<Shifted>(x));
  CHECK(Session(model, {}).Run(One("x", odd))[0].ToFloats()[0] == 15);
}

TEST_CASE("results outlive session and feeds, even what is passed through") {
  Model model = ModelFromText(R"(<ir_version: 8, opset_import: ["" : 17]>
g (float[1024] x) => (float[1024] y, float[1024] z, float[1024] copy)
{ y = Neg(x) copy = Identity(x) z = Identity(y) })");
  Graph& graph = model.graph();
  graph.AddGraphOutput(graph.AddInitializer("w", Tensor::Of({1024}, std::vector<float>(1024, 7))));
  std::vector<Tensor> outputs;
  {
    const Session session(model, {});
    Feeds feeds = One("x", Tensor::Of({1024}, std::vector<float>(1024, 3)));
    outputs = session.Run(feeds);
    for (const Tensor& output : outputs) {
      CHECK_FALSE(output.SharesBytesWith(feeds[0].second));
      CHECK_FALSE(output.SharesBytesWith(*graph.FindValue("w")->initializer()));
    }
  }
  model = Model();
  const float expected[] = {-3, -3, 3, 7};
  REQUIRE(outputs.size() == 4);
  for (size_t i = 0; i < 4; ++i)
    CHECK(outputs[i].ToFloats() == std::vector<float>(1024, expected[i]));
}

TEST_CASE("an initializer that is also an input may be fed or left out") {
  const Session session(ModelFromText(R"(<ir_version: 8, opset_import: ["" : 17]>
g (float[2] x, float[2] w) => (float[2] y) <float[2] w = {2, 3}> { y = Mul(x, w) })"),
                        {});
  CHECK(session.inputs().size() == 1);
  const Tensor x = Floats({2}, {1, 1});
  CHECK(session.Run(One("x", x))[0].ToFloats() == std::vector<float>{2, 3});
  CHECK(session.Run({{"x", x}, {"w", Floats({2}, {5, 6})}})[0].ToFloats() ==
        std::vector<float>{5, 6});
}

TEST_CASE("types other than float, and tensors without elements") {
  const Session session(ModelFromText(R"(<ir_version: 8, opset_import: ["" : 17]>
g (int64[N] x, bool[N] m) => (int8[N] i, bool[N] n, float16[N] h, string[N] s)
{ i = Cast<to = 3>(x) n = Not(m) h = Cast<to = 10>(x) s = Cast<to = 8>(x) })"),
                        {});
  const Tensor mask = Tensor::FromBytes(DType::kBool, {2}, std::as_bytes(std::span("\1\0", 2)));
  const std::vector<Tensor> outputs =
      session.Run({{"x", Tensor::Of<int64_t>({2}, {-1, 2})}, {"m", mask}});
  CHECK(outputs[0].dtype() == DType::kInt8);
  CHECK(outputs[0].ToInts() == std::vector<int64_t>{-1, 2});
  CHECK(outputs[1].ToInts() == std::vector<int64_t>{0, 1});
  CHECK(outputs[2].ToFloats() == std::vector<float>{-1, 2});
  CHECK(outputs[3].strings() == std::vector<std::string>{"-1", "2"});
  const std::vector<Tensor> empty = session.Run({{"x", Tensor::FromBytes(DType::kInt64, {0}, {})},
                                                 {"m", Tensor::FromBytes(DType::kBool, {0}, {})}});
  CHECK(empty[0].dims() == Dims{0});
  CHECK(empty[3].strings().empty());
}

std::string ErrorOf(const std::function<void()>& run, ErrorCode code = ErrorCode::kEngine) {
  try {
    run();
  } catch (const UserError& error) {
    CHECK(error.code == code);
    CHECK(error.message.size() <= 300);
    CHECK(error.message.find('\n') == std::string::npos);
    CHECK(error.message.find("onnxruntime_src") == std::string::npos);
    return error.Line();
  }
  return "accepted";
}

TEST_CASE("ONNX Runtime's errors are one line") {
  const TempDir dir;
  const auto has = [](const std::string& text, std::string_view part) {
    INFO(text);
    CHECK(text.find(part) != std::string::npos);
  };
  has(ErrorOf([] {
        Session(ModelFromText("<ir_version: 8, opset_import: [\"\" : 17, \"d\" : 1]> "
                              "g (float[2] x) => (float[2] y) { y = d.Unknown(x) }"),
                {});
      }),
      "d:Unknown(-1) is not a registered function/op");
  test::WriteFile(dir / "broken.onnx", "no model");
  const std::string broken = ErrorOf([&] { Session(dir / "broken.onnx", SessionOptions{}); });
  CHECK(broken == (dir / "broken.onnx").string() + ": Protobuf parsing failed.");

  const Session session(ModelFromText(kLinear), {});
  has(ErrorOf([&] { session.Run({}); }), "Missing Input: x");
  has(ErrorOf([&] { session.Run(One("x", Floats({1, 3}, {1, 2, 3}))); }), "Got: 3 Expected: 2");
  has(ErrorOf([&] {
        session.Run(One("x", Tensor::Of<int64_t>({1, 2}, {1, 2})));
      }),
      "Unexpected input data type");
  const std::vector<std::string> unknown = {"nothing"};
  has(ErrorOf([&] { session.Run(One("x", Floats({1, 2}, {1, 2})), unknown); }), "nothing");
  has(ErrorOf(
          [&] {
            session.Run(One("x", Tensor::OfStrings({1, 2}, {"a", "b"})));
          },
          ErrorCode::kUnsupported),
      "input \"x\" of type string cannot be fed");
  SessionOptions options;
  options.operator_library = dir / "absent.so";
  has(ErrorOf([&] { Session(ModelFromText(kLinear), options); }), "absent.so");
}

TEST_CASE("an output that is no tensor is not supported") {
  const Session session(ModelFromText(R"(<ir_version: 8, opset_import: ["" : 17]>
g (float[2] x) => (seq(float[2]) s) { s = SequenceConstruct(x) })"),
                        {});
  CHECK(session.outputs()[0].type.dtype == DType::kUndefined);
  CHECK(ErrorOf(
            [&] {
              session.Run(One("x", Floats({2}, {1, 2})));
            },
            ErrorCode::kUnsupported) == "output \"s\" is no tensor");
}

TEST_CASE("intermediate values become outputs") {
  const Model model = ModelFromText(kLinear);
  const std::vector<std::string> names = {"p", "y"};
  const Session session(WithOutputs(model, names), {});
  REQUIRE(session.outputs().size() == 2);  // y is one already
  const std::vector<std::string> p = {"p"};
  CHECK(session.Run(One("x", Floats({1, 2}, {1, 1})), p)[0].ToFloats() == std::vector<float>{4, 6});
  CHECK(model.graph().outputs().size() == 1);
}

TEST_CASE("types of all values are inferred without running") {
  const Model model = ModelFromText(R"(<ir_version: 8, opset_import: ["" : 17]>
g (float[N,3,8,8] x, float[4,3,3,3] w) => (float[N,4] y)
<float scale = {2}>
{ c = Conv<pads = [1, 1, 1, 1]>(x, w)
  r = Relu(c)
  pool = GlobalAveragePool(r)
  flat = Flatten(pool)
  shape = Shape(flat)
  seq = SequenceConstruct(flat)
  y = Mul(flat, scale) })");
  const std::vector<Port> ports = InferTypes(model, {});
  const ValueType& relu = TypeOf(ports, "r");
  CHECK(relu.dtype == DType::kFloat);
  REQUIRE(relu.dims.size() == 4);
  CHECK(std::get<std::string>(relu.dims[0]) == "N");
  CHECK(std::get<int64_t>(relu.dims[1]) == 4);
  CHECK(std::get<int64_t>(relu.dims[2]) == 8);
  CHECK(TypeOf(ports, "shape").dtype == DType::kInt64);
  CHECK(std::get<int64_t>(TypeOf(ports, "shape").dims[0]) == 2);
  CHECK(TypeOf(ports, "w").dims.size() == 4);
  CHECK(TypeOf(ports, "scale").has_shape);
  CHECK(TypeOf(ports, "x").dims.size() == 4);
  CHECK_THROWS(TypeOf(ports, "seq"));
}

TEST_CASE("a run is measured in turns") {
  const Session a(ModelFromText(kLinear), {}), b(ModelFromText(kLinear), {});
  const Session* const sessions[] = {&a, &b};
  const Feeds feeds = One("x", Floats({1, 2}, {1, 1}));
  const std::vector<Latency> latencies =
      TimeInterleaved(sessions, feeds, {.warmup = 1, .min_runs = 7, .min_seconds = 0});
  REQUIRE(latencies.size() == 2);
  for (const Latency& latency : latencies) {
    CHECK(latency.runs == 7);
    CHECK(latency.min_ms > 0);
    CHECK(latency.min_ms <= latency.median_ms);
    CHECK(latency.median_ms <= latency.p95_ms);
  }
  // The time limit wins over the number of runs, but never below three.
  CHECK(TimeInterleaved(sessions, feeds,
                        {.warmup = 0, .min_runs = 1000, .min_seconds = 0, .max_seconds = 0})[0]
            .runs == 3);
  CHECK(TimeInterleaved({}, feeds).empty());
  CHECK_THROWS_AS(TimeInterleaved(sessions, {}), UserError);
}

TEST_CASE("the library says its version") {
  const std::string version = EngineVersion();
  CHECK(version.size() >= 5);
  CHECK(version[0] == '1');
}

}  // namespace
}  // namespace sparsefuse

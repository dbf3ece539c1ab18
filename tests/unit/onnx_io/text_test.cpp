#include "onnx_io/text.h"

#include "onnx_io/writer.h"
#include "tests/support/support.h"
#include "tests/unit/onnx_io/protos.h"

namespace sparsefuse {
namespace {

using test::Contains;

constexpr const char* kText = R"(<
   ir_version: 9,
   opset_import: ["" : 17,"d" : 1],
   producer_name: "test"
>
g (float[N,4] x) => (float[N,4] y) 
   <float[4] W =  {1,2.5,-3,0.1}, int64[2] axes =  {-1,9223372036854775807}, float[N,4] h>
{
   [add] h = Add (x, W)
   [f] y = d.F <alpha: float = 0.5> (h)
}
<
  domain: "d",
  opset_import: ["" : 17]
>
F <alpha>(a) => (b)
{
   b = LeakyRelu <alpha: float = @alpha> (a)
}
)";

}  // namespace

TEST_CASE("text → model → text is a fixed point, functions included") {
  const Model model = ModelFromText(kText);
  CHECK(model.ir_version == 9);
  CHECK(model.functions().size() == 1);
  const Value* w = model.graph().FindValue("W");
  CHECK(w->constant()->ToFloats() == std::vector<float>{1, 2.5f, -3, 0.1f});
  CHECK(w->constant()->form == TensorForm::kTyped);
  CHECK(model.graph().FindValue("h")->type()->dims.size() == 2);
  const std::string text = ToText(model);
  CHECK(ToText(ModelFromText(text)) == text);
  CHECK(SerializeModel(ModelFromText(text)) == SerializeModel(model));
  CHECK(Contains(text, "[add] h = Add (x, W)"));
  CHECK(Contains(text, "y = d.F <alpha: float = 0.5> (h)"));
  CHECK(Contains(text, "b = LeakyRelu <alpha: float = @alpha> (a)"));
}

TEST_CASE("a bare graph gets a header") {
  const Model model = ModelFromText("g (float[1] x) => (float[1] y) { y = Neg(x) }");
  CHECK(model.ir_version == kTextIrVersion);
  CHECK(model.opset() == kTextOpset);
}

TEST_CASE("syntax errors have line and column, semantic ones a node") {
  const std::string line = test::ErrorOf(
      ErrorCode::kModel, [] { ModelFromText("g (float[1] x) => (float[1] y) {\n  y = Neg(x\n}"); });
  CHECK(Contains(line, "line 3, column 1: "));
  CHECK(line.find("\\n") == std::string::npos);
  test::ErrorOf(ErrorCode::kModel, [] { ModelFromText(""); });
  test::ErrorOf(ErrorCode::kModel, [] {
    ModelFromText(
        "g (float[1] x) => (float[1] y) <int64[1] i = {99999999999999999999}> {y = Neg(x)}");
  });
  CHECK(
      Contains(test::ErrorOf(ErrorCode::kModel,
                             [] { ModelFromText("g (float[1] x) => (float[1] y) {y = Neg(z)}"); }),
               "node \"y\" (Neg): input 0 \"z\" is defined nowhere"));
  test::ErrorOf(ErrorCode::kTensor, [] {
    ModelFromText("g (float[1] x) => (float[1] y) <float[3] w = {1,2}> {y = Neg(x)}");
  });
}

TEST_CASE("large tensors and types without syntax are elided") {
  Model model = ModelFromText("g (float[1] x) => (float[1] y) { y = Neg(x) }");
  Graph& graph = model.graph();
  graph.AddInitializer("small", Tensor::Of<float>({16}, std::vector<float>(16, 1)));
  graph.AddInitializer("large", Tensor::Of<float>({17}, std::vector<float>(17, 1)));
  graph.AddInitializer("texts", Tensor::OfStrings({17}, std::vector<std::string>(17, "t")));
  const std::byte nibbles[1] = {};
  graph.AddInitializer("four", Tensor::FromBytes(DType::kInt4, {2}, nibbles));
  graph.AddNode({.op = "Constant", .outputs = {"k"}, .attributes = [] {
                   std::vector<std::pair<std::string, Attribute::Data>> list;
                   list.emplace_back("value", Tensor::Of<float>({100}, std::vector<float>(100, 2)));
                   return list;
                 }()});
  const std::string text = ToText(model);
  CHECK(Contains(text, "float[16] small =  {1,1,"));
  // The digests, computed with Python's hashlib.
  CHECK(Contains(text, R"(float[17] large = ["elements": "17", "sha256": "a384cb79a3c2a477"])"));
  CHECK(Contains(text, R"(int4[2] four = ["elements": "2", "sha256": "6e340b9cffb37a98"])"));
  CHECK(Contains(text, R"(string[17] texts = ["elements": "17")"));
  CHECK(Contains(text, R"(value: tensor = float[100]["elements": "100")"));
  CHECK(Contains(ToText(model, {.max_elements = 17}), "float[17] large =  {1,1"));
  CHECK(Contains(test::ErrorOf(ErrorCode::kTensor,
                               [] {
                                 ModelFromText(R"(g (float[1] x) => (float[1] y)
                                     <float[17] w = ["elements": "17"]> { y = Neg(x) })");
                               }),
                 "initializer \"w\": external data has the unknown key \"elements\""));

  Model other = model.Clone();
  other.graph().FindValue("large")->set_initializer(
      Tensor::Of<float>({17}, std::vector<float>(17, 3)));
  CHECK(ToText(other) != text);
}

TEST_CASE("every asset prints, shortly") {
  const auto assets = test::Assets();
  if (!assets) return;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(*assets)) {
    if (entry.path().extension() != ".onnx" ||
        entry.path().filename() == "test_evil_weights.onnx") {
      continue;
    }
    INFO(entry.path());
    const std::string text = ToText(ReadModel(entry.path()));
    CHECK(text.size() > 100);
    CHECK(text.size() < 2'000'000);
  }
}

}  // namespace sparsefuse

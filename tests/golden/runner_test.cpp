// The golden runner must be able to fail.

#include "onnx_io/error.h"
#include "tests/golden/golden.h"
#include "tests/support/catch.h"

namespace sparsefuse::test {
namespace {

constexpr const char* kFile = R"(# What it is about.
# RUN in-test {"a": 1}
# CONTEXT {"samples": 8, "nodes_to_exclude": ["keep"]}
g (float[N,4] x) => (float[N,3] y) <float[4,3] w = {…}> {
  [product] y = MatMul(x, w)
}
# EXPECT unchanged; skipped: "product" (no reason)
)";

using Action = PassStats (*)(Model&, Context&);

template <Action action>
class ActionPass final : public Pass {
 public:
  PassStats Run(Model& model, Context& context) override { return action(model, context); }
};

template <Action action>
GoldenResult RunWith(std::string text = kFile, Exactness exactness = Exactness::kLossless) {
  const PassInfo info = {.name = "in-test",
                         .summary = "",
                         .exactness = exactness,
                         .params = {{.name = "a", .otherwise = int64_t{0}, .summary = ""}},
                         .make = [](const Params&) -> std::unique_ptr<Pass> {
                           return std::make_unique<ActionPass<action>>();
                         }};
  return RunGolden(ParseGolden(text), info);
}

void Rename(Model& model, const std::string& name) { model.graph().Nodes()[0]->set_name(name); }

PassStats SkipProduct(Model& model, Context& context) {
  CHECK(context.calibration->size() == 8);
  CHECK(context.exclude_nodes.Match("keep"));
  PassStats stats;
  stats.Skip(*model.graph().Nodes()[0], "no reason");
  return stats;
}
PassStats DoNothing(Model&, Context&) { return {}; }
PassStats Lie(Model& model, Context&) {
  Rename(model, "other");
  return {};
}
PassStats Boast(Model&, Context&) { return {.changed = true}; }
PassStats FollowThreads(Model& model, Context& context) {
  Rename(model, "with" + std::to_string(context.threads));
  return {.changed = true};
}
PassStats Grow(Model& model, Context&) {
  Rename(model, model.graph().Nodes()[0]->name() + "x");
  return {.changed = true};
}
PassStats BreakNumbers(Model& model, Context&) {
  model.graph().FindValue("w")->set_initializer(
      Tensor::Of<float>({4, 3}, std::vector<float>(12, 0.5f)));
  return {.changed = true};
}
PassStats BreakSignature(Model& model, Context&) {
  model.graph().AddGraphOutput(model.graph().FindValue("w"));
  return {.changed = true};
}
PassStats Refuse(Model&, Context&) {
  throw UserError(ErrorCode::kUnsupported, "not with 3 legs", "grow a fourth");
}

using Problems = std::vector<std::string>;

TEST_CASE("a pass that keeps every promise has no problems") {
  const GoldenResult result = RunWith<SkipProduct>();
  CHECK(result.problems == Problems{});
  CHECK(result.outcome == "# EXPECT unchanged\n# FINDING skipped: \"product\" (no reason)\n");
  CHECK(Matches(ParseGolden(kFile).expectation, result.outcome));
}

TEST_CASE("broken promises are found") {
  CHECK(RunWith<Lie>().problems ==
        Problems{"it says that it changed nothing, and the model is another"});
  CHECK(RunWith<Boast>().problems ==
        Problems{"it says that it changed the model, which is the same"});
  CHECK(RunWith<FollowThreads>().problems == Problems{"1 and 2 threads give different bytes"});
  CHECK(RunWith<Grow>().problems == Problems{"a second run changes more"});
  CHECK(RunWith<Grow>("# ONCE it grows\n" + std::string(kFile)).problems == Problems{});
  const Problems numbers = RunWith<BreakNumbers>().problems;
  REQUIRE(numbers.size() == 1);
  CHECK(numbers[0].find("its answers are others: output \"y\": differs") == 0);
  const Problems signature = RunWith<BreakSignature>().problems;
  REQUIRE(signature.size() == 1);
  CHECK(signature[0].find("it broke the graph") == 0);
}

TEST_CASE("a file says when the engine cannot run its model, and only then") {
  const std::string text = R"(# RUN in-test
<ir_version: 8, opset_import: ["" : 17, "elsewhere" : 1]>
g (float[2] x) => (float[2] y) { y = elsewhere.Unknown(x) }
# EXPECT unchanged
)";
  REQUIRE(RunWith<DoNothing>(text).problems.size() == 1);
  CHECK(RunWith<DoNothing>(text).problems[0].find("the engine does not run the model") == 0);
  CHECK(RunWith<DoNothing>("# NO ENGINE unknown operator\n" + text).problems == Problems{});
  CHECK(RunWith<SkipProduct>("# NO ENGINE untrue\n" + std::string(kFile)).problems.size() == 1);
}

TEST_CASE("errors match by code and by a part of their text") {
  const std::string outcome = RunWith<Refuse>().outcome;
  CHECK(outcome == "# EXPECT error E_UNSUPPORTED: not with 3 legs; grow a fourth\n");
  CHECK(Matches(outcome, outcome));
  CHECK(Matches("# EXPECT error E_UNSUPPORTED: 3 legs\n", outcome));
  CHECK(Matches("# EXPECT error E_UNSUPPORTED\n", outcome));
  CHECK_FALSE(Matches("# EXPECT error E_UNSUPPORTED: 4 legs\n", outcome));
  CHECK_FALSE(Matches("# EXPECT error E_MODEL: 3 legs\n", outcome));
  CHECK_FALSE(Matches("# EXPECT unchanged\n", outcome));
  CHECK_FALSE(Matches("# EXPECT error E_UNSUPPORTED\n", "# EXPECT unchanged\n"));
}

TEST_CASE("findings and text must be equal") {
  const std::string outcome = "# EXPECT\n# FINDING done: \"a\" (b)\nmodel {\n}\n";
  CHECK(Matches("# EXPECT; done: \"a\" (b)\nmodel {\n}\n\n", outcome));
  CHECK_FALSE(Matches("# EXPECT\nmodel {\n}\n", outcome));
  CHECK_FALSE(Matches("# EXPECT; done: \"a\" (c)\nmodel {\n}\n", outcome));
  CHECK_FALSE(Matches("# EXPECT; done: \"a\" (b)\nmodel {\n y }\n", outcome));
  CHECK_FALSE(Matches("# EXPECT unchanged\n", outcome));
}

TEST_CASE("files that are no golden tests are refused") {
  CHECK_THROWS_AS(ParseGolden("# EXPECT unchanged\n"), UserError);
  CHECK_THROWS_AS(ParseGolden("# RUN x\ng () => () {}\n"), UserError);
  CHECK_THROWS_AS(ParseGolden("# RUN x {\n# EXPECT\n"), UserError);
  CHECK_THROWS_AS(ParseGolden("# RUN x\n# CONTEXT {\"sample\": 1}\n# EXPECT\n"), UserError);
}

TEST_CASE("tensors are filled by name, in range") {
  CHECK(FillTensors("float[2] a = {1, 2}") == "float[2] a = {1, 2}");
  const std::string filled = FillTensors("<float[2,2] a = {…}, float[4] b = {+...}> {");
  CHECK(filled.find("…") == std::string::npos);
  CHECK(std::count(filled.begin(), filled.end(), ',') == 8);
  CHECK(filled == FillTensors("<float[2,2] a = {...}, float[4] b = {+…}> {"));
  CHECK(FillTensors("float[1] a = {…}").substr(10) != FillTensors("float[1] b = {…}").substr(10));
  CHECK(FillTensors("double[64] v = {+…}").find('-') == std::string::npos);
}

}  // namespace
}  // namespace sparsefuse::test

// The sweep: sums over uses, seeds, barriers, what is built and what is not.

#include "passes/autodiff/gradients.h"

#include <algorithm>

#include "onnx_io/text.h"
#include "passes/analysis/structure.h"
#include "passes/engine/engine.h"
#include "tests/support/catch.h"
#include "tests/unit/analysis/families.h"
#include "tests/unit/autodiff/finite_differences.h"

namespace sparsefuse {
namespace {

using test::CheckRule;
using Names = std::vector<std::string>;

TEST_CASE("a small network: every path and every use adds up") {
  CheckRule({R"(
agraph ($[3,4] x, $[4,5] w, $[5] b, $[5,2] v) => ($[3,2] y) {
  m = MatMul(x, w)
  a = Add(m, b)
  h = Relu(a)
  s = Mul(h, h)
  t = Add(s, a)
  z = MatMul(t, v)
  y = Softmax(z)
})"});
}

TEST_CASE("dynamic shapes are taken at run time") {
  const char* text = R"(
agraph ($[n,k] x, $[k,5] w, $[m] b) => ($[n,5] y) {
  p = MatMul(x, w)
  a = Add(p, b)
  y = Tanh(a)
})";
  CheckRule({.text = text, .lengths = {{"n", 3}, {"k", 4}, {"m", 5}}});
  CheckRule({.text = text, .lengths = {{"n", 3}, {"k", 4}, {"m", 1}}});
}

TEST_CASE("several seeds, of which one is an intermediate tensor") {
  const Model model = ModelFromText(R"(
agraph (double[3] x) => (double[3] y, double[3] z) {
  e = Exp(x)
  y = Mul(e, x)
  z = Sin(e)
})");
  const Feeds feeds = {{"x", test::Random(DType::kDouble, {3}, 1, -1, 1)}};
  test::CheckGradientsOf(model, feeds, {"x"}, {"y", "z", "e"}, test::kDouble);
  test::CheckGradientsOf(model, feeds, {"e"}, {"y", "z"}, test::kDouble);
}

TEST_CASE("a seed computed in the graph counts as a constant") {
  Model model = ModelFromText(R"(
agraph (double[2] x) => (double[2] y) { y = Mul(x, x) })");
  const Names tensors = {"x"};
  const std::vector<Seed> seeds = {{"y", "y"}};
  const Gradients gradients = AddGradients(model, tensors, seeds);
  CHECK(gradients.seeds == Names{"y"});
  const Feeds feeds = {{"x", Tensor::Of<double>({2}, std::vector<double>{3, -2})}};
  const Tensor dx =
      Session(WithOutputs(model, gradients.values), {}).Run(feeds, gradients.values)[0];
  CHECK(dx.data<double>()[0] == Approx(3.0 * 3 * 2 * 3));
  CHECK(dx.data<double>()[1] == Approx(2.0 * 2 * 2 * -2));
}

TEST_CASE("what a barrier cuts has no gradient, what it does not cut has") {
  Model model = ModelFromText(R"(
agraph (float[2,2] x, float[2,2] u, bool c) => (float[2,2] y) {
  e = Exp(x)
  [loop] b = If (c) <then_branch = g1 () => (float[2,2] p) { p = Neg(e) },
                     else_branch = g2 () => (float[2,2] q) { q = Identity(e) }>
  m = Mul(e, u)
  y = Add(m, b)
})");
  const Names tensors = {"x", "u", "m", "e"};
  const std::vector<Seed> seeds = {{"y", ""}};
  const Gradients gradients = AddGradients(model, tensors, seeds);
  REQUIRE(gradients.barriers.size() == 1);
  CHECK(gradients.barriers[0].node.find("loop") != std::string::npos);
  CHECK(gradients.barriers[0].op == "If");
  CHECK(gradients.barriers[0].reason == "gradients do not enter subgraphs");
  CHECK(gradients.barriers[0].tensors == Names{"x", "e"});
  CHECK(gradients.values[0].empty());
  CHECK_FALSE(gradients.values[1].empty());
  CHECK_FALSE(gradients.values[2].empty());
  CHECK(gradients.values[3].empty());
  CHECK(gradients.unrelated.empty());
  Verify(model);
  Session(WithOutputs(model, Names{gradients.values[1]}), {});
}

TEST_CASE("an operator without rule is a barrier, an input without rule cuts only that input") {
  Model model = ModelFromText(R"(
agraph (float[2,2] x, float low, float[2,2] w) => (float[2,2] y) {
  c = Clip(x, low)
  h = Hardmax(w)
  y = Mul(c, h)
})");
  const Names tensors = {"x", "low", "w"};
  const std::vector<Seed> seeds = {{"y", ""}};
  const Gradients gradients = AddGradients(model, tensors, seeds);
  REQUIRE(gradients.barriers.size() == 2);
  CHECK(gradients.barriers[0].reason == "no rule for its input 1");
  CHECK(gradients.barriers[0].tensors == Names{"low"});
  CHECK(gradients.barriers[1].op == "Hardmax");
  CHECK(gradients.barriers[1].reason == "no rule for this operator");
  CHECK(gradients.barriers[1].tensors == Names{"w"});
  CHECK_FALSE(gradients.values[0].empty());
}

TEST_CASE("a fused operator without rule is one for decompose") {
  Model model = ModelFromText(R"(
<ir_version: 8, opset_import: ["" : 18, "com.microsoft" : 1]>
agraph (float[2,2,2] x, float[2] g) => (float[2,2,2] y) {
  y = com.microsoft.SkipLayerNormalization(x, x, g)
})");
  const Names tensors = {"x"};
  const std::vector<Seed> seeds = {{"y", ""}};
  const Gradients gradients = AddGradients(model, tensors, seeds);
  REQUIRE(gradients.barriers.size() == 1);
  CHECK(gradients.barriers[0].reason == "it is fused: run decompose first");
}

TEST_CASE("gradients pass everything that decompose has taken apart") {
  for (const test::Family& family : test::Families()) {
    if (!family.fused) continue;
    INFO(family.name);
    Model model = test::FamilyModel(family.name);
    Names tensors;
    for (const Module& module : FindStructure(model).modules) {
      for (const ModuleRead& read : module.reads) {
        tensors.push_back(read.node->input(read.input)->name());
      }
    }
    REQUIRE(!tensors.empty());
    const std::vector<Seed> seeds = {{"y", ""}};
    const Gradients gradients = AddGradients(model, tensors, seeds);
    CHECK(gradients.barriers.empty());
    CHECK(gradients.unrelated.empty());
    Session(WithOutputs(model, gradients.values), {});
  }
}

TEST_CASE("a gradient at a second output is not dropped") {
  Model model = ModelFromText(R"(
agraph (float[2,4] x, float[4] g) => (float[2,4] y, float[2,1] m) {
  y, m = LayerNormalization(x, g)
})");
  const Names tensors = {"x"};
  const std::vector<Seed> seeds = {{"m", ""}};
  const Gradients gradients = AddGradients(model, tensors, seeds);
  REQUIRE(gradients.barriers.size() == 1);
  CHECK(gradients.barriers[0].reason == "no rule for its output 1");
}

TEST_CASE("what no path joins to a seed is listed, steps included") {
  Model model = ModelFromText(R"(
agraph (float[2,2] x, float[2,2] u) => (float[2,2] y, float[2,2] z) {
  r = Round(x)
  y = Add(r, u)
  z = Neg(x)
})");
  const size_t before = model.graph().node_count();
  const Names tensors = {"x", "u"};
  const std::vector<Seed> seeds = {{"y", ""}};
  const Gradients gradients = AddGradients(model, tensors, seeds);
  CHECK(gradients.barriers.empty());
  CHECK(gradients.unrelated == Names{"x"});
  CHECK(gradients.values[0].empty());
  CHECK(model.graph().node_count() == before + 1);  // u's gradient is the seed
}

TEST_CASE("only what leads from the wanted tensors is built") {
  Model model = ModelFromText(R"(
agraph (float[2,3] x, float[3,3] w, float[3,3] v) => (float[2,3] y) {
  a = MatMul(x, w)
  b = Tanh(a)
  y = MatMul(b, v)
})");
  const size_t before = model.graph().node_count();
  const Names tensors = {"b"};
  const std::vector<Seed> seeds = {{"y", ""}};
  AddGradients(model, tensors, seeds);
  CHECK(model.graph().node_count() == before + 3);  // Transpose, MatMul, Identity
}

TEST_CASE("names that are no floating-point tensors of the graph are refused") {
  Model model = ModelFromText(R"(
agraph (float[2,2] x, int64[1] i) => (float[1,2] y) { y = Gather(x, i) })");
  const std::vector<Seed> seeds = {{"y", ""}};
  CHECK_THROWS_AS(AddGradients(model, Names{"nothing"}, seeds), UserError);
  CHECK_THROWS_AS(AddGradients(model, Names{"i"}, seeds), UserError);
  model.opset_imports[""] = 12;
  CHECK_THROWS_AS(AddGradients(model, Names{"x"}, seeds), UserError);
}

}  // namespace
}  // namespace sparsefuse

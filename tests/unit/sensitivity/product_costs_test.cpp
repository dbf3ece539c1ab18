// Against counts by hand.

#include "passes/sensitivity/product_costs.h"

#include "tests/support/catch.h"
#include "tests/support/dataset.h"
#include "tests/unit/analysis/graphs.h"

namespace sparsefuse {
namespace {

// Two blocks, y = x + f(x), that share their first weight, and a product behind them.
Model TwoBlocks() {
  return test::ParseGraph(R"(
<ir_version: 10, opset_import: ["" : 21]>
agraph (float[B,3,4] x) => (float[B,3,2] y)
<float[4,6] w1 = ?, float[6,4] w2 = ?, float[6,4] w3 = ?, float[4,2] w4 = ?>
{
  h = MatMul (x, w1)
  r = Relu (h)
  f = MatMul (r, w2)
  a = Add (x, f)
  h2 = MatMul (a, w1)
  r2 = Relu (h2)
  f2 = MatMul (r2, w3)
  b = Add (a, f2)
  y = MatMul (b, w4)
}
)");
}

TEST_CASE("weights that blocks share go with the last of them") {
  const Model model = TwoBlocks();
  const Structure structure = FindStructure(model);
  REQUIRE(structure.blocks.size() == 2);
  const Block *first = &structure.blocks[0], *second = &structure.blocks[1];
  const ProductCosts costs(model, ProductCosts::Unit::kParameters, {});
  CHECK(costs.total() == 4 * 6 + 6 * 4 + 6 * 4 + 4 * 2);
  CHECK(costs.Saved({}, std::vector{first}) == 6 * 4);
  CHECK(costs.Saved({}, std::vector{first, second}) == 4 * 6 + 2 * 6 * 4);
  // Of 6 neurons, which both run through, 2 stay; the second block's layer goes anyway.
  REQUIRE(structure.modules.size() == 1);
  const Keep keep{&structure.modules[0], {1, 3}};
  CHECK(costs.Saved({&keep, 1}) == 4 * (4 + 4 + 4));
  CHECK(costs.Saved({&keep, 1}, std::vector{second}) == 4 * (4 + 4) + 6 * 4);

  Prunable prunable{.module = &structure.modules[0]};
  const Prunable* pruned = &prunable;
  CHECK(costs.Of({&pruned, 1}) == 3 * 6 * 4);
}

TEST_CASE("multiply-adds go with each place where a weight is used") {
  const Model model = TwoBlocks();
  const Structure structure = FindStructure(model);
  const Block* first = &structure.blocks.at(0);
  const test::Calibration calibration(model, {{"x", test::Counting({2, 3, 4})}});
  const ProductCosts costs(model, ProductCosts::Unit::kFlops, calibration.context);
  CHECK(costs.total() == 3 * (4 * (6 * 4) + 4 * 2));
  CHECK(costs.Saved({}, std::vector{first}) == 3 * 2 * 6 * 4);
  Prunable prunable{.module = &structure.modules.at(0)};
  const Prunable* pruned = &prunable;
  CHECK(costs.Of({&pruned, 1}) == 3 * 4 * 6 * 4);
}

TEST_CASE("the products of a block count for the module that it goes with") {
  const Model model = test::ParseGraph(R"(
<ir_version: 10, opset_import: ["" : 21]>
agraph (float[B,4] x) => (float[B,4] y)
<float[4,4] w0 = ?, float[4,6] w1 = ?, float[6,4] w2 = ?>
{
  s = MatMul (x, w0)
  n = Softmax (s)
  h = MatMul (n, w1)
  r = Relu (h)
  f = MatMul (r, w2)
  y = Add (x, f)
}
)");
  const Structure structure = FindStructure(model);
  const ProductCosts costs(model, ProductCosts::Unit::kParameters, {});
  Prunable prunable{.module = &structure.modules.at(0)};
  const Prunable* pruned = &prunable;
  CHECK(costs.Of({&pruned, 1}) == 2 * 4 * 6);
  prunable.block = &structure.blocks.at(0);
  CHECK(costs.Of({&pruned, 1}) == 2 * 4 * 6 + 4 * 4);
}

}  // namespace
}  // namespace sparsefuse

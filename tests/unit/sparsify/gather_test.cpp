#include "passes/sparsify/gather.h"

#include <algorithm>
#include <numeric>
#include <random>

#include "passes/prune/removal.h"
#include "tests/support/catch.h"
#include "tests/unit/analysis/families.h"
#include "tests/unit/prune/removing.h"

namespace sparsefuse {
namespace {

using Eigen::Index;
using Eigen::MatrixXd;

MatrixXd Uniform(Index rows, Index columns, unsigned seed) {
  std::mt19937 random(seed);
  std::uniform_real_distribution<double> uniform;
  return MatrixXd::NullaryExpr(rows, columns, [&] { return uniform(random); });
}

std::vector<int64_t> Plain(int64_t units) {
  std::vector<int64_t> order(static_cast<size_t>(units));
  std::iota(order.begin(), order.end(), 0);
  return order;
}

TEST_CASE("what is dropped is the cheapest share of the cells") {
  MatrixXd costs(4, 2);
  costs << 1, 10, 2, 20, 3, 30, 4, 40;
  const std::vector<UnitCosts> matrices = {{costs, 2}};
  const auto dropped = [&](std::vector<int64_t> order, double share) {
    return DroppedCost(matrices, order, share);
  };
  CHECK(dropped({0, 1, 2, 3}, 0.5) == 3 + 7);
  CHECK(dropped({0, 1, 2, 3}, 0.25) == 3);
  CHECK(dropped({0, 3, 1, 2}, 0.25) == 5);
  CHECK(dropped({0, 1, 2, 3}, 1) == 110);
}

TEST_CASE("units that cost alike are brought together") {
  // Units of two kinds, mixed: those of a kind cost in the same columns.
  const Index units = 32;
  MatrixXd costs = Uniform(units, 6, 1) * 0.01;
  for (Index u = 0; u < units; ++u) costs.row(u).segment(u * 7 % 2 * 3, 3).array() += 1;
  const std::vector<UnitCosts> matrices = {{costs, 4}};
  const std::vector<int64_t> order = FindOrder(matrices, 0.5);
  CHECK(DroppedCost(matrices, order, 0.5) < 0.05 * DroppedCost(matrices, Plain(units), 0.5));
  std::vector<int64_t> sorted = order;
  std::sort(sorted.begin(), sorted.end());
  CHECK(sorted == Plain(units));
}

TEST_CASE("never worse than the order that is there, near the best one") {
  for (unsigned seed = 0; seed < 20; ++seed) {
    CAPTURE(seed);
    MatrixXd costs = Uniform(8, 1, seed);
    const std::vector<UnitCosts> matrices = {{costs, 4}};
    const double found = DroppedCost(matrices, FindOrder(matrices, 0.5), 0.5);
    CHECK(found <= DroppedCost(matrices, Plain(8), 0.5));
    double least = found;
    std::vector<int64_t> order = Plain(8);
    do {
      least = std::min(least, DroppedCost(matrices, order, 0.5));
    } while (std::next_permutation(order.begin(), order.end()));
    CHECK(found == Approx(least));  // of one column: by cost
  }
}

TEST_CASE("neurons and values in another order give the same answers in every family") {
  int permuted = 0;
  for (const test::Family& family : test::Families()) {
    const Model model = test::FamilyModel(family.name);
    const Structure structure = FindStructure(model);
    const Feeds feeds = test::RandomFeeds(model, 1);
    for (const Module& module : structure.modules) {
      const bool free =
          module.kind == ModuleKind::kNeurons || module.kind == ModuleKind::kHeadWidthV;
      if (!free || module.residual || module.units < 2) continue;
      CAPTURE(family.name, Name(module.kind), module.units);
      std::vector<int64_t> order = Plain(module.units);
      std::rotate(order.begin(), order.begin() + 1, order.end());
      Model other = model.Clone();
      PermuteUnits(other, module, order);
      CHECK(RemovalError(model, other, feeds, {.threads = 1}) < 1e-5);
      for (const ModuleAxis& axis : module.axes) {
        const Value* value = other.graph().FindValue(axis.tensor->name());
        CHECK_FALSE(
            std::ranges::equal(value->constant()->bytes(), axis.tensor->constant()->bytes()));
      }
      ++permuted;
    }
  }
  CHECK(permuted >= 8);
}

}  // namespace
}  // namespace sparsefuse

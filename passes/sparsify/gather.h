// The order of units that nothing outside their atom sees (neurons, the width of values), so that
// those that are missed least share quads and panels, which can then be zero as a whole.

#ifndef SPARSEFUSE_PASSES_SPARSIFY_GATHER_H_
#define SPARSEFUSE_PASSES_SPARSIFY_GATHER_H_

#include <Eigen/Core>
#include <cstdint>
#include <span>
#include <vector>

#include "passes/analysis/structure.h"
#include "passes/framework/pass.h"

namespace sparsefuse {

// What weights cost that lie side by side when units do: `chunk` consecutive units and one column
// make a cell. A consumer's: 4 units as inputs, one column a panel of outputs; a producer's: 32
// units as outputs, one column a quad of inputs.
struct UnitCosts {
  Eigen::MatrixXd costs;  // [units, columns], ≥ 0
  Eigen::Index chunk;
};

// Σ of the cheapest `share` of all cells when units lie in `order`, each matrix for itself.
double DroppedCost(std::span<const UnitCosts> matrices, std::span<const int64_t> order,
                   double share);

// An order with a low DroppedCost, never above that of 0, 1, 2 …: by total cost, or each four of
// those that cost alike in all columns.
std::vector<int64_t> FindOrder(std::span<const UnitCosts> matrices, double share);

// Position u of every axis that the module runs through gets what belonged to unit order[u]. The
// model computes the same, in another order of sums.
void PermuteUnits(Model& model, const Module& module, std::span<const int64_t> order);

// `model` with the units of its feed-forward layers and values in the order for blocks of `share`
// zeros. Each module's permutation is checked on samples of the select split: outputs within 1e-4
// of their size, or it stays and is reported. Needs context.calibration.
Model GatherUnits(const Model& model, double share, const Context& context, PassStats& stats);

}  // namespace sparsefuse

#endif  // SPARSEFUSE_PASSES_SPARSIFY_GATHER_H_

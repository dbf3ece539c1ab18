// Multiple-choice knapsack: one option for each module, so that enough is saved at the least loss.

#ifndef SPARSEFUSE_PASSES_PRUNE_KNAPSACK_H_
#define SPARSEFUSE_PASSES_PRUNE_KNAPSACK_H_

#include <optional>
#include <span>
#include <vector>

namespace sparsefuse {

struct KnapsackOption {
  double loss;   // ≥ 0, adds up over modules
  double saved;  // ≥ 0, adds up over modules
};

// For each module the index of its option. Savings are counted in 1/4096 of `wanted`, rounded down,
// so the result really saves `wanted` and its loss is within that grain of the best. Ties go to the
// earlier option. Nullopt: all modules together cannot save so much.
std::optional<std::vector<size_t>> ChooseOptions(
    std::span<const std::vector<KnapsackOption>> modules, double wanted);

}  // namespace sparsefuse

#endif  // SPARSEFUSE_PASSES_PRUNE_KNAPSACK_H_

// Group optimal brain surgeon: which units of a module to remove when the survivors repair what
// they can (ZipLM's score, OSSCAR's batches and swaps; design/algorithms.md 2, reference §7.2).
//
// For a consumer Y = X·W of the module, with the Gram H = XᵀX/T of centred inputs and the output
// metric G, removing rows S and refitting the rest K costs
//
//   min over W' of tr((W − W')ᵀ H (W − W') G) = tr(W_Sᵀ (H⁻¹_SS)⁻¹ W_S G)
//
// and the refit is W'_K = W_K + H_KK⁻¹ H_KS W_S: it does not depend on G, which only weighs errors.

#ifndef SPARSEFUSE_PASSES_SENSITIVITY_GROUP_OBS_H_
#define SPARSEFUSE_PASSES_SENSITIVITY_GROUP_OBS_H_

#include <Eigen/Core>
#include <cstdint>
#include <span>
#include <vector>

#include "passes/sensitivity/output_metric.h"

namespace sparsefuse {

// One product that sums over the module's units.
struct ObsConsumer {
  Eigen::MatrixXd weight;        // W [n, m]
  Eigen::MatrixXd gram;          // H [n, n], symmetric, of centred inputs, divided by the row count
  OutputMetric metric;           // G [m, m]
  std::vector<int64_t> unit_of;  // n: the unit that each row goes with, −1: it stays
};

struct ObsLevel {
  std::vector<int64_t> kept;  // units, ascending
  double error = 0;           // of all consumers after the refit, as above
};

struct ObsOptions {
  int64_t batch = 1;         // units that are removed between two updates of the scores
  int64_t swap_rounds = 20;  // at most, at each level
};

// One level for each of `counts` (descending, each ≤ units; 0: nothing is kept and the outputs are
// their means). Units are removed one batch after the other from all of `units`.
std::vector<ObsLevel> BuildObsLevels(std::span<const ObsConsumer> consumers, int64_t units,
                                     std::span<const int64_t> counts, const ObsOptions& options);

// W' [n, m], the removed units' rows zero.
Eigen::MatrixXd ObsRefit(const ObsConsumer& consumer, std::span<const int64_t> kept);

// tr((W − changed)ᵀ H (W − changed) G).
double ObsError(const ObsConsumer& consumer, const Eigen::MatrixXd& changed);

}  // namespace sparsefuse

#endif  // SPARSEFUSE_PASSES_SENSITIVITY_GROUP_OBS_H_

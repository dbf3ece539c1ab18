// The consumers of a module whose units go: what the survivors can make up for.

#ifndef SPARSEFUSE_PASSES_SENSITIVITY_CONSUMER_REFIT_H_
#define SPARSEFUSE_PASSES_SENSITIVITY_CONSUMER_REFIT_H_

#include <Eigen/Core>
#include <cstdint>
#include <span>
#include <vector>

#include "passes/sensitivity/evidence.h"
#include "passes/sensitivity/group_obs.h"
#include "passes/sensitivity/prunable.h"

namespace sparsefuse {

// What group OBS asks of a module: moments of its consumers' inputs on the fit split, and the
// Fisher information of their outputs (ones where no gradient reaches them).
struct ObsModule {
  std::vector<ObsConsumer> consumers;
  std::vector<Eigen::VectorXd> means;  // of each consumer's X
  std::vector<double> rows;            // seen, of each
};
ObsModule CollectObs(Evidence& evidence, const Prunable& module);

// W' and b' = b + μᵀ(W − W') of consumer `index`.
Refit RefitConsumer(const Prunable& prunable, const ObsModule& obs, size_t index,
                    std::span<const int64_t> kept);
// The removed units' rows zero, nothing repaired.
Refit ZeroConsumer(const Prunable& prunable, size_t index, std::span<const int64_t> kept);

// Writes it into `model`, perhaps a copy of the one that the modules were found in.
void SetRefit(Model& model, const Prunable& prunable, size_t index, const Refit& refit);

}  // namespace sparsefuse

#endif  // SPARSEFUSE_PASSES_SENSITIVITY_CONSUMER_REFIT_H_

// What could be removed from each module, and what that is predicted to cost.

#ifndef SPARSEFUSE_PASSES_SENSITIVITY_UNIT_OPTIONS_H_
#define SPARSEFUSE_PASSES_SENSITIVITY_UNIT_OPTIONS_H_

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "passes/sensitivity/evidence.h"
#include "passes/sensitivity/prunable.h"

namespace sparsefuse {

// How units are ranked.
enum class Criterion {
  kObs,        // the error left when the survivors repair it, weighed by the outputs' Fisher
               // information
  kFisher,     // mean square of the gradient of the unit's mask
  kGradient,   // mean size of that gradient: SFQ's rule
  kMagnitude,  // sum of squares of the unit's weights
};

struct PruneOption {
  std::vector<int64_t> kept;  // units, ascending
  double predicted;           // kObs, kFisher: KL per answer, in nats; else in the score's unit
  double measured = -1;  // KL per answer on the select split, only this module changed; −1: no
};

struct ModuleOptions {
  const Prunable* prunable;
  std::vector<double> unit_fisher;   // mean square of the mask's gradient
  std::vector<PruneOption> options;  // from mild to strong; nothing removed is not among them
  double correction = 1;             // measured over predicted KL; 1: not measured
  std::string reason;                // why there are no options

  // KL, as far as it is known: measured, else predicted and corrected.
  double Expected(const PruneOption& option) const;
};

// Numbers of units to keep, descending, without all: every number for heads and groups; about 12
// for neurons and channels, in multiples.
std::vector<int64_t> KeepCounts(const Module& module, int64_t neuron_multiple,
                                int64_t channel_multiple);

// One a module of `modules`, which are the evidence's own, perhaps with other counts and reasons. A
// module that gradients do not reach, or whose inputs were seen fewer than 4 times a feature, gets
// a reason instead of options. With kObs two options of each module are measured, all where
// prediction and measurement disagree, and the others are corrected by what that shows.
std::vector<ModuleOptions> FindOptions(Evidence& evidence, std::span<const Prunable> modules,
                                       Criterion criterion);

}  // namespace sparsefuse

#endif  // SPARSEFUSE_PASSES_SENSITIVITY_UNIT_OPTIONS_H_

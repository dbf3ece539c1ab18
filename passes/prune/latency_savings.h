// What options save in time on this machine: measured in ONNX Runtime, one thread, one sample.

#ifndef SPARSEFUSE_PASSES_PRUNE_LATENCY_SAVINGS_H_
#define SPARSEFUSE_PASSES_PRUNE_LATENCY_SAVINGS_H_

#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "passes/prune/choose.h"

namespace sparsefuse {

// Savings in milliseconds.
//
// alone: the part of the model between the cuts around a module, as it is and with units removed,
// interleaved; for a mild option, one in the middle and the strongest, and for a block that goes.
// What lies between is interpolated. together: the whole model likewise, whenever it is asked for
// other choices. all: what one unit a module saves, over the share of multiply-adds that go then.
// `model` and `options` must outlive the result. UserError E_UNSUPPORTED: no time to be seen.
Savings MeasureSavings(const Model& model, const std::vector<ModuleOptions>& options,
                       const Context& context);

// Rises from (0, 0) through `points` (removed > 0 ascending, saved), each raised to the highest
// before it; beyond the last at the last one's rate.
double Interpolate(std::span<const std::pair<double, double>> points, double removed);

// What timing decided, in context.decisions["prune"]["latency"]: a list with an entry a pass, found
// by ratio and modules.
struct LatencyDecision {
  std::vector<Choice> choices;
  double saved = 0, saved_of_model = 0;  // shares of the prunable layers' and the model's time
};
// Nothing: none fits.
std::optional<LatencyDecision> RecordedDecision(const std::vector<ModuleOptions>& options,
                                                double ratio, const Context& context);
void Record(const LatencyDecision& decision, const std::vector<ModuleOptions>& options,
            double ratio, Context& context);

}  // namespace sparsefuse

#endif  // SPARSEFUSE_PASSES_PRUNE_LATENCY_SAVINGS_H_

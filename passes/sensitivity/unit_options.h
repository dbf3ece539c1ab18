// What could be removed from each module, and what that is predicted to cost.

#ifndef SPARSEFUSE_PASSES_SENSITIVITY_UNIT_OPTIONS_H_
#define SPARSEFUSE_PASSES_SENSITIVITY_UNIT_OPTIONS_H_

#include <Eigen/Core>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "passes/engine/engine.h"
#include "passes/framework/context.h"
#include "passes/sensitivity/group_obs.h"
#include "passes/sensitivity/prunable.h"
#include "passes/statistics/batches.h"

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
};

struct OptionSettings {
  Criterion criterion = Criterion::kObs;
  int64_t samples = 128;  // of the fit split, at most: for gradients
};

// Numbers of units to keep, descending, without all: every number for heads and groups; about 12
// for neurons and channels, in multiples.
std::vector<int64_t> KeepCounts(const Module& module, int64_t neuron_multiple,
                                int64_t channel_multiple);

// One a module; needs context.calibration. A module that gradients do not reach, or whose inputs
// were seen fewer than 4 times a feature, gets a reason instead of options. With kObs two options
// of each module are measured, all where prediction and measurement disagree, and the others are
// corrected by what that shows.
std::vector<ModuleOptions> FindOptions(const Model& model, std::span<const Prunable> modules,
                                       const OptionSettings& settings, const Context& context);

// KL(teacher ‖ student) per answer on the select split, in nats; of outputs without classes half
// the squared error over the energy.
double SelectKl(const Model& student, const Session& teacher, const Context& context);

// --- the parts of it that applying a choice needs, too ---

// The fit split's statistics of all consumers of some modules.
struct ObsModule {
  std::vector<ObsConsumer> consumers;
  std::vector<Eigen::VectorXd> means;  // of each consumer's X
  std::vector<double> rows;            // seen, of each
};
std::vector<ObsModule> CollectObs(const Model& model, std::span<const Prunable* const> modules,
                                  const Batches& fit, const std::optional<std::string>& mask,
                                  const Context& context);

struct Refit {
  Eigen::MatrixXd weight;
  Eigen::VectorXd bias;
};
// W' and b' = b + μᵀ(W − W') of consumer `index`.
Refit RefitConsumer(const Prunable& prunable, const ObsModule& obs, size_t index,
                    std::span<const int64_t> kept);
// The removed units' rows zero, nothing repaired.
Refit ZeroConsumer(const Prunable& prunable, size_t index, std::span<const int64_t> kept);

// Writes it into `model`, perhaps a copy of the one that the modules were found in.
void SetRefit(Model& model, const Prunable& prunable, size_t index, const Refit& refit);

}  // namespace sparsefuse

#endif  // SPARSEFUSE_PASSES_SENSITIVITY_UNIT_OPTIONS_H_

#include "passes/sensitivity/unit_options.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>
#include <optional>
#include <utility>

#include "passes/framework/parallel.h"
#include "passes/sensitivity/consumer_refit.h"
#include "passes/statistics/gram.h"

namespace sparsefuse {
namespace {

using Eigen::Index;
using Eigen::MatrixXd;
using Eigen::VectorXd;

constexpr int64_t kLevels = 12;
constexpr double kDisagreement = 3;
// Of a set of units: how much of its loss is the sum of its units', which does not cancel
// (reference §6.3).
constexpr double kIndependent = 0.5;

double GramBytes(const Prunable& module) {
  double bytes = 0;
  for (const Consumer& consumer : module.consumers) bytes += Evidence::GramBytes(consumer.matrix);
  return bytes;
}

// --- scores
// ---------------------------------------------------------------------------------------

std::vector<double> Magnitudes(const Module& module) {
  std::vector<double> sums(static_cast<size_t>(module.units));
  for (const ModuleAxis& axis : module.axes) {
    const Tensor& tensor = *axis.tensor->constant();
    if (!IsFloating(tensor.dtype())) continue;
    const std::vector<float> values = tensor.ToFloats();
    const Dims& dims = tensor.dims();
    size_t inner = 1;
    for (size_t i = axis.axis + 1; i < dims.size(); ++i) inner *= static_cast<size_t>(dims[i]);
    const size_t length = axis.unit_of.size();
    for (size_t i = 0; i < values.size(); ++i) {
      const int64_t unit = axis.unit_of[i / inner % length];
      if (unit >= 0) sums[static_cast<size_t>(unit)] += static_cast<double>(values[i]) * values[i];
    }
  }
  const double total = std::accumulate(sums.begin(), sums.end(), 0.0);
  for (double& sum : sums) sum /= total > 0 ? total : 1;
  return sums;
}

// Units with the least scores go first; `loss` of the removed ones.
std::vector<PruneOption> RankedOptions(
    const std::vector<double>& scores, std::span<const int64_t> counts,
    const std::function<double(const std::vector<int64_t>& removed)>& loss) {
  std::vector<int64_t> order(scores.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) {
    return scores[static_cast<size_t>(a)] > scores[static_cast<size_t>(b)];
  });
  std::vector<PruneOption> options;
  for (const int64_t count : counts) {
    PruneOption option{{order.begin(), order.begin() + count}, 0};
    std::sort(option.kept.begin(), option.kept.end());
    option.predicted = loss({order.begin() + count, order.end()});
    options.push_back(std::move(option));
  }
  return options;
}

std::vector<PruneOption> ScoredOptions(const Prunable& prunable, const MatrixXd& gradients,
                                       double answers, Criterion criterion) {
  std::vector<double> scores;
  if (criterion == Criterion::kMagnitude) scores = Magnitudes(*prunable.module);
  for (Index u = 0; criterion != Criterion::kMagnitude && u < gradients.cols(); ++u) {
    scores.push_back(criterion == Criterion::kFisher ? gradients.col(u).squaredNorm()
                                                     : gradients.col(u).cwiseAbs().sum());
    scores.back() /= static_cast<double>(gradients.rows());
  }
  return RankedOptions(scores, prunable.counts, [&](const std::vector<int64_t>& removed) {
    double sum = 0;
    for (const int64_t unit : removed) sum += scores[static_cast<size_t>(unit)];
    if (criterion != Criterion::kFisher) return sum;
    const std::vector<Index> columns(removed.begin(), removed.end());
    const double together = gradients(Eigen::all, columns).rowwise().sum().squaredNorm() /
                            static_cast<double>(gradients.rows());
    return 0.5 * ((1 - kIndependent) * together + kIndependent * sum) / answers;
  });
}

std::vector<PruneOption> RepairedOptions(const Prunable& prunable, const ObsModule& obs,
                                         double answers) {
  const int64_t units = prunable.module->units;
  const std::vector<ObsLevel> levels = BuildObsLevels(obs.consumers, units, prunable.counts,
                                                      {.batch = units >= 128 ? units / 32 : 1});
  std::vector<PruneOption> options;
  for (const ObsLevel& level : levels) {
    options.push_back({level.kept, 0.5 * level.error / answers});
  }
  return options;
}

// --- measured KL ---------------------------------------------------------------------------------

double MeasureKl(Evidence& evidence, const Prunable& prunable, const ObsModule& obs,
                 const PruneOption& option) {
  Model student = evidence.model().Clone();
  for (size_t i = 0; i < prunable.consumers.size(); ++i) {
    SetRefit(student, prunable, i, RefitConsumer(prunable, obs, i, option.kept));
  }
  return evidence.kl().Of(student);
}

void Calibrate(const std::function<double(const PruneOption&)>& measure, ModuleOptions& module) {
  std::span<PruneOption> options = module.options;
  // Nothing kept is far from the others, whose factor says little about it.
  if (options.back().kept.empty()) {
    options.back().measured = measure(options.back());
    options = options.first(options.size() - 1);
  }
  if (options.empty()) return;
  const auto factor = [](const PruneOption& o) {
    return std::max(o.measured, 1e-12) / std::max(o.predicted, 1e-12);
  };
  std::vector<size_t> probes = {options.size() / 4, options.size() * 2 / 3};
  if (probes[0] == probes[1]) probes.pop_back();
  for (const size_t i : probes) options[i].measured = measure(options[i]);
  const double first = factor(options[probes.front()]), last = factor(options[probes.back()]);
  module.correction = std::sqrt(first * last);
  if (std::max(first / last, last / first) > kDisagreement) {
    for (PruneOption& option : options) {
      if (option.measured < 0) option.measured = measure(option);
    }
  }
}

// --- kept on disk --------------------------------------------------------------------------------

std::string StoredName(const Prunable& prunable, uint64_t seed) {
  std::string name = fmt::format("unit options 4: {} seed {}", prunable.name, seed);
  for (const Consumer& consumer : prunable.consumers) {
    name += " " + consumer.matrix.output->name();
  }
  return name + fmt::format("\n{}", fmt::join(prunable.counts, " "));
}

bool Restore(StatisticsStore& store, const std::string& name, ModuleOptions& module) {
  const std::optional<Matrices> kept = store.Find(name);
  if (!kept || kept->empty()) return false;
  const MatrixXd& table = kept->front();  // [1 + options, 2]: correction; predicted, measured
  if (table.cols() != 2 || table.rows() != static_cast<Index>(kept->size())) return false;
  module.correction = table(0, 0);
  for (Index i = 1; i < table.rows(); ++i) {
    const MatrixXd& units = (*kept)[static_cast<size_t>(i)];
    module.options.push_back(
        {{units.data(), units.data() + units.size()}, table(i, 0), table(i, 1)});
  }
  return true;
}

void Save(StatisticsStore& store, const std::string& name, const ModuleOptions& module) {
  MatrixXd table(static_cast<Index>(1 + module.options.size()), 2);
  table.row(0) << module.correction, 0;
  Matrices all(1);
  for (const PruneOption& option : module.options) {
    table.row(static_cast<Index>(all.size())) << option.predicted, option.measured;
    MatrixXd units(static_cast<Index>(option.kept.size()), 1);
    for (Index u = 0; u < units.rows(); ++u) {
      units(u, 0) = static_cast<double>(option.kept[static_cast<size_t>(u)]);
    }
    all.push_back(std::move(units));
  }
  all[0] = std::move(table);
  store.Keep(name, all);
}

// --- modules -------------------------------------------------------------------------------------

// One module on its way to options by group OBS.
struct ObsJob {
  ModuleOptions* module;
  ObsModule obs;
};

// Why the statistics do not do for a refit, which would fit what is chance; empty: they do.
std::string TooFewRows(const Prunable& prunable, const ObsModule& obs, const Context& context) {
  for (size_t i = 0; i < obs.rows.size(); ++i) {
    const auto inputs = static_cast<double>(prunable.consumers[i].matrix.inputs);
    if (obs.rows[i] >= kRowsPerInput * inputs) continue;
    // Three of five samples are for fitting.
    const double samples = static_cast<double>(context.splits.fit.size()) * 5 / 3;
    return fmt::format(
        "{:.0f} rows of data for {:.0f} inputs; refitting needs {:.0f} times as many as inputs, "
        "about {:.0f} calibration samples",
        obs.rows[i], inputs, kRowsPerInput,
        std::ceil(samples * kRowsPerInput * inputs / std::max(obs.rows[i], 1.0)));
  }
  return "";
}

void RunObsJobs(Evidence& evidence, std::vector<ObsJob>& jobs) {
  const double answers = evidence.curvature().answers;
  ForEachIndex(evidence.context().threads, jobs.size(), [&](size_t j) {
    ModuleOptions& module = *jobs[j].module;
    module.options = RepairedOptions(*module.prunable, jobs[j].obs, answers);
  });
  for (const ObsJob& job : jobs) {
    const Prunable& prunable = *job.module->prunable;
    Calibrate(
        [&](const PruneOption& option) { return MeasureKl(evidence, prunable, job.obs, option); },
        *job.module);
    Save(evidence.store(), StoredName(prunable, evidence.context().seed), *job.module);
  }
  jobs.clear();
}

void FindObsOptions(Evidence& evidence, std::span<ModuleOptions* const> modules) {
  const Context& context = evidence.context();
  std::vector<ObsJob> jobs;
  double bytes = 0;
  for (size_t m = 0; m < modules.size(); ++m) {
    ModuleOptions& module = *modules[m];
    const Prunable& prunable = *module.prunable;
    if (!Restore(evidence.store(), StoredName(prunable, context.seed), module)) {
      const double own = GramBytes(prunable);
      if (!jobs.empty() && bytes + own > Evidence::kChunkBytes) {
        RunObsJobs(evidence, jobs);
        bytes = 0;
      }
      ObsModule obs = CollectObs(evidence, prunable);
      module.reason = TooFewRows(prunable, obs, context);
      if (module.reason.empty()) {
        bytes += own;
        jobs.push_back({&module, std::move(obs)});
      }
    }
    context.progress("options", static_cast<int64_t>(m), static_cast<int64_t>(modules.size()));
  }
  RunObsJobs(evidence, jobs);
  context.progress("options", static_cast<int64_t>(modules.size()),
                   static_cast<int64_t>(modules.size()));
}

// Why no options can be found, whatever the data show; empty: they can.
std::string WhyNone(const Prunable& prunable, const Curvature& curvature) {
  if (!prunable.reason.empty()) return prunable.reason;
  for (const Consumer& consumer : prunable.consumers) {
    for (const Value* tensor : {consumer.matrix.input, consumer.matrix.output}) {
      const auto found = curvature.unreachable.find(tensor->name());
      if (found != curvature.unreachable.end()) return found->second;
    }
  }
  if (prunable.counts.empty()) {
    return "too few units to remove any in the multiples that are asked for";
  }
  return "";
}

}  // namespace

double ModuleOptions::Expected(const PruneOption& option) const {
  return option.measured >= 0 ? option.measured : option.predicted * correction;
}

std::vector<int64_t> KeepCounts(const Module& module, int64_t neuron_multiple,
                                int64_t channel_multiple) {
  const bool channels =
      module.kind == ModuleKind::kChannels || module.kind == ModuleKind::kChannelGroups;
  const bool many = channels || module.kind == ModuleKind::kNeurons;
  const int64_t multiple = many ? (channels ? channel_multiple : neuron_multiple) : 1;
  const int64_t step = many ? (module.units + kLevels - 1) / kLevels : 1;
  std::vector<int64_t> counts;
  for (int64_t removed = step; removed < module.units; removed += step) {
    const int64_t count = (module.units - removed) / multiple * multiple;
    if (count > 0 && (counts.empty() || count < counts.back())) counts.push_back(count);
  }
  return counts;
}

std::vector<ModuleOptions> FindOptions(Evidence& evidence, std::span<const Prunable> modules,
                                       Criterion criterion) {
  const Curvature& curvature = evidence.curvature();
  std::vector<ModuleOptions> result;
  for (const Prunable& prunable : modules) {
    result.push_back({.prunable = &prunable, .reason = WhyNone(prunable, curvature)});
  }
  std::vector<ModuleOptions*> usable;
  for (size_t m = 0; m < result.size(); ++m) {
    ModuleOptions& module = result[m];
    if (!module.reason.empty()) continue;
    const MatrixXd& gradients = curvature.units[m];
    for (Index u = 0; u < gradients.cols(); ++u) {
      module.unit_fisher.push_back(gradients.col(u).squaredNorm() /
                                   static_cast<double>(gradients.rows()));
    }
    if (criterion != Criterion::kObs) {
      module.options = ScoredOptions(modules[m], gradients, curvature.answers, criterion);
    }
    usable.push_back(&module);
  }
  if (criterion == Criterion::kObs) FindObsOptions(evidence, usable);
  return result;
}

}  // namespace sparsefuse

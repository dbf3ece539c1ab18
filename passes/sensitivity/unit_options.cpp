#include "passes/sensitivity/unit_options.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>
#include <set>
#include <utility>

#include "passes/engine/evaluate.h"
#include "passes/sensitivity/fisher.h"
#include "passes/statistics/gram.h"

namespace sparsefuse {
namespace {

using Eigen::Index;
using Eigen::MatrixXd;
using Eigen::VectorXd;

constexpr int64_t kLevels = 12;
constexpr int64_t kMostMeasured = 64;              // samples of the select split
constexpr double kGramBudget = 256.0 * (1 << 20);  // bytes of Gram matrices at a time
constexpr double kDisagreement = 3;
// Of a set of units: how much of its loss is the sum of its units', which does not cancel
// (reference §6.3).
constexpr double kIndependent = 0.5;

double GramBytes(const Prunable& module) {
  double bytes = 0;
  for (const Consumer& consumer : module.consumers) {
    bytes += 8.0 * static_cast<double>(consumer.matrix.inputs * consumer.matrix.inputs);
  }
  return bytes;
}

// --- gradients of masks
// ---------------------------------------------------------------------------

struct MaskGradients {
  std::vector<MatrixXd> units;       // of each module [samples, units]
  std::vector<VectorXd> importance;  // of each consumer's outputs, module by module
  double answers = 1;
};

MaskGradients CollectMaskGradients(const Model& model, std::span<const Prunable* const> modules,
                                   const OptionSettings& settings, const Context& context) {
  FisherRequest request;
  for (const Prunable* module : modules) {
    std::set<const Value*> seen;  // consumers of one tensor share its gradient
    for (const Consumer& consumer : module->consumers) {
      const MatrixView& matrix = consumer.matrix;
      request.columns.push_back({matrix.output->name(), consumer.image, matrix.outputs});
      if (!seen.insert(matrix.input).second) continue;
      request.masks.push_back({matrix.input->name(), consumer.image,
                               static_cast<int64_t>(consumer.unit_of_position.size())});
    }
  }
  std::vector<int64_t> samples = context.splits.fit;
  if (static_cast<int64_t>(samples.size()) > settings.samples) {
    samples.resize(static_cast<size_t>(settings.samples));
  }
  const Fisher fisher = CollectFisher(model, request, context, samples, 2);
  MaskGradients gradients;
  gradients.answers = fisher.answers;
  gradients.importance = fisher.columns;
  size_t tap = 0;
  for (const Prunable* module : modules) {
    MatrixXd units = MatrixXd::Zero(fisher.samples, module->module->units);
    std::set<const Value*> seen;
    for (const Consumer& consumer : module->consumers) {
      if (!seen.insert(consumer.matrix.input).second) continue;
      const MatrixXd& positions = fisher.masks[tap++];
      for (size_t i = 0; i < consumer.unit_of_position.size(); ++i) {
        const int64_t unit = consumer.unit_of_position[i];
        if (unit >= 0) units.col(unit) += positions.col(static_cast<Index>(i));
      }
    }
    gradients.units.push_back(std::move(units));
  }
  return gradients;
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
                                       double answers, std::span<const int64_t> counts,
                                       Criterion criterion) {
  std::vector<double> scores;
  if (criterion == Criterion::kMagnitude) scores = Magnitudes(*prunable.module);
  for (Index u = 0; criterion != Criterion::kMagnitude && u < gradients.cols(); ++u) {
    scores.push_back(criterion == Criterion::kFisher ? gradients.col(u).squaredNorm()
                                                     : gradients.col(u).cwiseAbs().sum());
    scores.back() /= static_cast<double>(gradients.rows());
  }
  return RankedOptions(scores, counts, [&](const std::vector<int64_t>& removed) {
    double sum = 0;
    for (const int64_t unit : removed) sum += scores[static_cast<size_t>(unit)];
    if (criterion != Criterion::kFisher) return sum;
    const std::vector<Index> columns(removed.begin(), removed.end());
    const double together = gradients(Eigen::all, columns).rowwise().sum().squaredNorm() /
                            static_cast<double>(gradients.rows());
    return 0.5 * ((1 - kIndependent) * together + kIndependent * sum) / answers;
  });
}

std::vector<PruneOption> RepairedOptions(const Prunable& prunable, ObsModule& obs,
                                         std::span<const VectorXd> importance, double answers,
                                         std::span<const int64_t> counts) {
  for (size_t i = 0; i < obs.consumers.size(); ++i) {
    // What gradients never met counts a little, not nothing.
    obs.consumers[i].importance =
        importance[i].array() + 1e-6 * std::max(importance[i].mean(), 1e-30);
  }
  const int64_t units = prunable.module->units;
  const std::vector<ObsLevel> levels =
      BuildObsLevels(obs.consumers, units, counts, {.batch = units >= 128 ? units / 32 : 1});
  std::vector<PruneOption> options;
  for (const ObsLevel& level : levels) {
    options.push_back({level.kept, 0.5 * level.error / answers});
  }
  return options;
}

// --- measured KL
// ----------------------------------------------------------------------------------

double MeasureKl(const Model& model, const Session& teacher, const Prunable& prunable,
                 const ObsModule& obs, const PruneOption& option, const Context& context) {
  Model student = model.Clone();
  for (size_t i = 0; i < prunable.consumers.size(); ++i) {
    SetRefit(student, prunable, i, RefitConsumer(prunable, obs, i, option.kept));
  }
  return SelectKl(student, teacher, context);
}

void Calibrate(const std::function<double(const PruneOption&)>& measure, ModuleOptions& module) {
  std::vector<PruneOption>& options = module.options;
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

}  // namespace

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

double SelectKl(const Model& student, const Session& teacher, const Context& context) {
  const Session session(student, {.threads = context.threads});
  std::vector<int64_t> samples = context.splits.select;
  if (static_cast<int64_t>(samples.size()) > kMostMeasured) samples.resize(kMostMeasured);
  const Distances distances = CompareModels(teacher, session, *context.calibration, samples).main();
  if (const double kl = distances.Kl(); !std::isnan(kl)) return std::max(kl, 0.0);
  // One value an answer: half the squared error over the outputs' energy.
  return 0.5 * distances.error_energy / std::max(distances.reference_energy, 1e-30);
}

std::vector<ObsModule> CollectObs(const Model& model, std::span<const Prunable* const> modules,
                                  const Batches& fit, const std::optional<std::string>& mask,
                                  const Context& context) {
  std::vector<RowRequest> requests;
  for (const Prunable* module : modules) {
    for (const Consumer& consumer : module->consumers) {
      requests.push_back({InputRows(consumer.matrix), true});
    }
  }
  std::vector<RowStatistics> statistics = CollectRows(model, requests, fit, mask, context);
  std::vector<ObsModule> result;
  size_t next = 0;
  for (const Prunable* module : modules) {
    ObsModule obs;
    for (const Consumer& consumer : module->consumers) {
      RowStatistics& rows = statistics[next++];
      rows.gram /= std::max(rows.count, 1.0);
      obs.consumers.push_back({Weight(consumer.matrix), std::move(rows.gram),
                               VectorXd::Ones(consumer.matrix.outputs), consumer.unit_of});
      obs.means.push_back(std::move(rows.mean));
      obs.rows.push_back(rows.count);
    }
    result.push_back(std::move(obs));
  }
  return result;
}

Refit RefitConsumer(const Prunable& prunable, const ObsModule& obs, size_t index,
                    std::span<const int64_t> kept) {
  const ObsConsumer& consumer = obs.consumers[index];
  Refit refit{ObsRefit(consumer, kept), Bias(prunable.consumers[index].matrix)};
  refit.bias += (consumer.weight - refit.weight).transpose() * obs.means[index];
  return refit;
}

Refit ZeroConsumer(const Prunable& prunable, size_t index, std::span<const int64_t> kept) {
  const Consumer& consumer = prunable.consumers[index];
  Refit refit{Weight(consumer.matrix), Bias(consumer.matrix)};
  for (size_t i = 0; i < consumer.unit_of.size(); ++i) {
    const int64_t unit = consumer.unit_of[i];
    if (unit >= 0 && !std::binary_search(kept.begin(), kept.end(), unit)) {
      refit.weight.row(static_cast<Index>(i)).setZero();
    }
  }
  return refit;
}

void SetRefit(Model& model, const Prunable& prunable, size_t index, const Refit& refit) {
  SetWeight(model, SameMatrix(model, prunable.consumers[index].matrix), refit.weight, refit.bias);
}

std::vector<ModuleOptions> FindOptions(const Model& model, std::span<const Prunable> modules,
                                       const OptionSettings& settings, const Context& context) {
  std::vector<ModuleOptions> result;
  std::vector<std::string> tensors;
  std::vector<size_t> first_tensor;
  for (const Prunable& prunable : modules) {
    result.push_back({.prunable = &prunable, .reason = prunable.reason});
    first_tensor.push_back(tensors.size());
    for (const Consumer& consumer : prunable.consumers) {
      tensors.push_back(consumer.matrix.input->name());
      tensors.push_back(consumer.matrix.output->name());
    }
  }
  const std::vector<std::string> unreachable = Unreachable(model, tensors);
  std::vector<const Prunable*> usable;
  std::vector<size_t> place;
  for (size_t i = 0; i < modules.size(); ++i) {
    const size_t end = i + 1 < modules.size() ? first_tensor[i + 1] : tensors.size();
    for (size_t t = first_tensor[i]; t < end && result[i].reason.empty(); ++t) {
      result[i].reason = unreachable[t];
    }
    if (result[i].reason.empty() && modules[i].counts.empty()) {
      result[i].reason = "too few units to remove any in the multiples that are asked for";
    }
    if (!result[i].reason.empty()) continue;
    usable.push_back(&modules[i]);
    place.push_back(i);
  }
  if (usable.empty()) return result;
  const MaskGradients gradients = CollectMaskGradients(model, usable, settings, context);
  const bool obs = settings.criterion == Criterion::kObs;
  const Session teacher(model, {.threads = context.threads});
  std::vector<MatrixView> views;
  for (const Prunable* prunable : usable) {
    for (const Consumer& consumer : prunable->consumers) views.push_back(consumer.matrix);
  }
  const Batches fit = MakeBatches(*context.calibration, context.splits.fit,
                                  obs ? ChooseBatch(model, views, context) : 1);
  const std::optional<std::string> mask = FindPaddingMask(model, fit);
  size_t importance = 0;
  for (size_t first = 0, last = 0; first < usable.size(); first = last) {
    double bytes = 0;
    while (last < usable.size() &&
           (last == first || bytes + GramBytes(*usable[last]) < kGramBudget)) {
      bytes += GramBytes(*usable[last++]);
    }
    const auto group = std::span(usable).subspan(first, last - first);
    std::vector<ObsModule> statistics;
    if (obs) statistics = CollectObs(model, group, fit, mask, context);
    for (size_t m = first; m < last; ++m) {
      const Prunable& prunable = *usable[m];
      ModuleOptions& module = result[place[m]];
      const MatrixXd& units = gradients.units[m];
      for (Index u = 0; u < units.cols(); ++u) {
        module.unit_fisher.push_back(units.col(u).squaredNorm() /
                                     static_cast<double>(units.rows()));
      }
      const std::vector<int64_t>& counts = prunable.counts;
      const auto own =
          std::span(gradients.importance).subspan(importance, prunable.consumers.size());
      importance += prunable.consumers.size();
      if (!obs) {
        module.options =
            ScoredOptions(prunable, units, gradients.answers, counts, settings.criterion);
        continue;
      }
      ObsModule& own_statistics = statistics[m - first];
      for (size_t i = 0; i < own_statistics.rows.size(); ++i) {
        const int64_t inputs = prunable.consumers[i].matrix.inputs;
        if (own_statistics.rows[i] >= 4 * static_cast<double>(inputs)) continue;
        module.reason = fmt::format("{} rows of data for {} inputs; 4 times as many are needed",
                                    static_cast<int64_t>(own_statistics.rows[i]), inputs);
      }
      if (!module.reason.empty()) continue;
      module.options = RepairedOptions(prunable, own_statistics, own, gradients.answers, counts);
      Calibrate(
          [&](const PruneOption& option) {
            return MeasureKl(model, teacher, prunable, own_statistics, option, context);
          },
          module);
      context.progress("options", static_cast<int64_t>(m + 1), static_cast<int64_t>(usable.size()));
    }
  }
  return result;
}

}  // namespace sparsefuse

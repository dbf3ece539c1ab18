#include "passes/engine/evaluate.h"

#include <algorithm>
#include <optional>
#include <unordered_set>

namespace sparsefuse {
namespace {

constexpr int64_t kMaxBatch = 32;
constexpr int64_t kMaxOutputBytes = 64 << 20;

std::vector<std::string> TensorOutputs(const Session& session) {
  std::vector<std::string> names;
  for (const Port& port : session.outputs()) {
    if (port.type.dtype != DType::kUndefined) names.push_back(port.name);
  }
  return names;
}

// With the samples as first axis; what has another first axis belongs to the batch as a whole.
Tensor AsSamples(const Tensor& output, size_t samples) {
  if (output.rank() > 0 && output.dims()[0] == static_cast<int64_t>(samples)) return output;
  Dims dims = output.dims();
  dims.insert(dims.begin(), 1);
  return output.dtype() == DType::kString ? output : output.Reshaped(std::move(dims));
}

// What one run of the first sample (or fixed batch) shows.
struct Probe {
  std::vector<std::string> names;  // tensor outputs
  int64_t batch = 1;
  TaskMetric metric = TaskMetric::kNone;
  size_t main_output = 0;  // in `names`
};

Probe RunProbe(const Session& session, const Dataset& data, std::span<const int64_t> samples,
               const EvaluateOptions& options) {
  Probe probe{.names = TensorOutputs(session)};
  const auto first = samples.first(
      std::min(samples.size(), static_cast<size_t>(std::max<int64_t>(1, data.fixed_batch()))));
  std::vector<Tensor> outputs;
  ForEachBatch(session, data, first, 1, probe.names,
               [&](std::span<const Tensor> results, std::span<const int64_t>) {
                 outputs.assign(results.begin(), results.end());
               });
  int64_t bytes = 1;
  std::optional<size_t> first_floating;
  for (size_t i = 0; i < outputs.size(); ++i) {
    bytes += static_cast<int64_t>(outputs[i].bytes().size());
    if (!IsFloating(outputs[i].dtype())) continue;
    if (!first_floating) first_floating = i;
    if (probe.metric != TaskMetric::kNone || !data.has_labels()) continue;
    probe.metric = ChooseMetric(AsSamples(outputs[i], first.size()), data.GatherLabels(first));
    if (probe.metric != TaskMetric::kNone) probe.main_output = i;
  }
  if (probe.metric == TaskMetric::kNone) probe.main_output = first_floating.value_or(0);
  probe.batch = options.batch > 0 ? options.batch
                                  : std::clamp<int64_t>(kMaxOutputBytes / bytes, 1, kMaxBatch);
  return probe;
}

}  // namespace

TaskScore EvaluateModel(const Session& session, const Dataset& data,
                        std::span<const int64_t> samples, const EvaluateOptions& options) {
  TaskScore score;
  if (!data.has_labels() || samples.empty()) return score;
  const Probe probe = RunProbe(session, data, samples, options);
  score.metric = probe.metric;
  if (probe.metric == TaskMetric::kNone) return score;
  std::optional<OutputKind> kind;
  int64_t done = 0;
  const std::span<const std::string> main(&probe.names[probe.main_output], 1);
  ForEachBatch(session, data, samples, probe.batch, main,
               [&](std::span<const Tensor> results, std::span<const int64_t> own) {
                 const Tensor output = AsSamples(results[0], own.size());
                 if (!kind) kind = DetectOutputKind(output);
                 score.Add(output, data.GatherLabels(own), *kind);
                 done += static_cast<int64_t>(own.size());
                 options.progress(done, static_cast<int64_t>(samples.size()));
               });
  return score;
}

Comparison CompareModels(const Session& reference, const Session& candidate, const Dataset& data,
                         std::span<const int64_t> samples, const EvaluateOptions& options) {
  std::unordered_set<std::string> offered;
  for (const Port& port : candidate.outputs()) offered.insert(port.name);
  const Probe probe = RunProbe(reference, data, samples, options);
  Comparison comparison;
  comparison.main_output = probe.main_output;
  comparison.reference_score.metric = comparison.candidate_score.metric = probe.metric;
  for (const std::string& name : probe.names) {
    if (!offered.contains(name)) {
      throw UserError(ErrorCode::kVerify,
                      fmt::format("the result has no output \"{}\"", Printable(name)));
    }
    comparison.outputs.push_back({name, {}});
  }
  std::vector<OutputKind> kinds;
  int64_t done = 0;
  const Session* const sessions[] = {&reference, &candidate};
  ForEachBatch(sessions, data, samples, probe.batch, probe.names,
               [&](std::span<const std::vector<Tensor>> results, std::span<const int64_t> own) {
                 for (size_t i = 0; i < probe.names.size(); ++i) {
                   const Tensor expected = AsSamples(results[0][i], own.size());
                   const Tensor found = AsSamples(results[1][i], own.size());
                   if (kinds.size() == i) kinds.push_back(DetectOutputKind(expected));
                   comparison.outputs[i].distances.Add(expected, found, kinds[i]);
                   if (i != probe.main_output || probe.metric == TaskMetric::kNone) continue;
                   if (found.dims() != expected.dims()) {
                     throw UserError(
                         ErrorCode::kVerify,
                         fmt::format("the result's output \"{}\" is {}, the original's {}",
                                     Printable(probe.names[i]), ToString(results[1][i].dims()),
                                     ToString(results[0][i].dims())));
                   }
                   const Tensor labels = data.GatherLabels(own);
                   comparison.reference_score.Add(expected, labels, kinds[i]);
                   comparison.candidate_score.Add(found, labels, kinds[i]);
                 }
                 done += static_cast<int64_t>(own.size());
                 options.progress(done, static_cast<int64_t>(samples.size()));
               });
  return comparison;
}

}  // namespace sparsefuse

#include "cli/scores.h"

#include <algorithm>
#include <array>

#include "cli/text.h"
#include "onnx_io/error.h"

namespace sparsefuse {
namespace {

constexpr std::array kTaskMetrics = {TaskMetric::kAccuracy, TaskMetric::kPerplexity,
                                     TaskMetric::kMse, TaskMetric::kMae};

bool IsRelative(TaskMetric metric) { return metric != TaskMetric::kAccuracy; }

// The metric's change: absolute for accuracy, else relative.
double Change(const Comparison& comparison) {
  const double before = comparison.reference_score.Value();
  const double after = comparison.candidate_score.Value();
  return IsRelative(comparison.candidate_score.metric) ? after / before - 1 : after - before;
}

std::string MetricLine(const Scores& scores) {
  const Comparison& c = scores.comparison;
  const TaskMetric metric = c.candidate_score.metric;
  const bool relative = IsRelative(metric);
  const std::string values =
      fmt::format("{:.4g} → {:.4g}", c.reference_score.Value(), c.candidate_score.Value());
  std::string line = fmt::format("{:<11}{:<20} ({}{}, 95 % interval {} … {}", MetricName(metric),
                                 values, SignedText(100 * Change(c), 2), relative ? " %" : " pp",
                                 SignedText(100 * scores.interval.low, 2),
                                 SignedText(100 * scores.interval.high, 2));
  if (c.main().answers > 0) {
    line += fmt::format("; {} of {} answers changed", c.main().flips, c.main().answers);
  }
  return line + ")";
}

}  // namespace

double Scores::Drop() const {
  if (!has_metric()) return 1 - comparison.main().Agreement();
  const double change = Change(comparison);
  return IsRelative(comparison.candidate_score.metric) ? change : -change;
}

std::string_view Scores::DropName() const {
  return has_metric() ? MetricName(comparison.candidate_score.metric) : "agreement";
}

Scores MakeScores(Comparison comparison, std::string samples_of, int64_t samples, uint64_t seed) {
  Scores scores{
      .samples_of = std::move(samples_of), .samples = samples, .comparison = std::move(comparison)};
  if (scores.has_metric()) {
    scores.interval =
        PairedInterval(scores.comparison.reference_score, scores.comparison.candidate_score, seed);
  }
  return scores;
}

bool WantedMetrics::Has(std::string_view name) const {
  return names_.empty() || std::find(names_.begin(), names_.end(), name) != names_.end();
}

void WantedMetrics::Check(const Scores& scores) const {
  for (const TaskMetric metric : kTaskMetrics) {
    const std::string_view name = MetricName(metric);
    if (names_.empty() || !Has(name) || scores.comparison.candidate_score.metric == metric)
      continue;
    throw UserError(
        ErrorCode::kData,
        fmt::format("metric {} does not fit the labels: {}", name,
                    scores.has_metric() ? fmt::format("they are for {}", scores.DropName())
                                        : "there are none for an output of the model"));
  }
}

std::vector<std::string> ScoreLines(const Scores& scores, const WantedMetrics& wanted) {
  std::vector<std::string> lines;
  if (scores.has_metric() && wanted.Has(MetricName(scores.comparison.candidate_score.metric))) {
    lines.push_back(MetricLine(scores));
  }
  const Distances& d = scores.comparison.main();
  std::string parts;
  const auto add = [&](std::string_view name, double value, std::string text) {
    if (wanted.Has(name) && value == value) parts += (parts.empty() ? "" : ", ") + std::move(text);
  };
  add("agreement", d.Agreement(), fmt::format("agreement {:.4f}", d.Agreement()));
  add("kl", d.Kl(), fmt::format("KL {:.2g}", d.Kl()));
  add("cosine", d.Cosine(), fmt::format("cosine {:.5f}", d.Cosine()));
  add("sqnr_db", d.SqnrDb(), fmt::format("SQNR {:.1f} dB", d.SqnrDb()));
  if (!parts.empty()) {
    lines.push_back(
        fmt::format("{:<11}{} (output \"{}\", {} of the {})", "distance", parts,
                    Printable(scores.comparison.outputs[scores.comparison.main_output].name),
                    Plural(scores.samples, "sample"), scores.samples_of));
  }
  return lines;
}

nlohmann::ordered_json ToJson(const Scores& scores, const WantedMetrics& wanted) {
  const Comparison& c = scores.comparison;
  nlohmann::ordered_json json = {{"samples_of", scores.samples_of}, {"samples", scores.samples}};
  if (scores.has_metric() && wanted.Has(MetricName(c.candidate_score.metric))) {
    json["metric"] = {{"name", MetricName(c.candidate_score.metric)},
                      {"before", c.reference_score.Value()},
                      {"after", c.candidate_score.Value()},
                      {"change", Change(c)},
                      {"change_is_relative", IsRelative(c.candidate_score.metric)},
                      {"interval_95", {scores.interval.low, scores.interval.high}}};
  }
  for (const OutputDistances& output : c.outputs) {
    const Distances& d = output.distances;
    nlohmann::ordered_json one = {
        {"output", output.name}, {"answers", d.answers}, {"flips", d.flips}};
    if (wanted.Has("agreement")) one["agreement"] = d.Agreement();
    if (wanted.Has("kl")) one["kl"] = d.Kl();
    if (wanted.Has("cosine")) one["cosine"] = d.Cosine();
    if (wanted.Has("sqnr_db")) one["sqnr_db"] = d.SqnrDb();
    json["distances"].push_back(std::move(one));
  }
  return json;
}

}  // namespace sparsefuse

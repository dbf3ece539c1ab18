// eval: a model's task metric on data; beside a reference, agreement and distances too.

#include <spdlog/spdlog.h>

#include <cmath>
#include <numeric>
#include <optional>

#include "cli/commands.h"
#include "cli/console.h"
#include "cli/operator_library.h"
#include "cli/scores.h"
#include "cli/system.h"
#include "cli/text.h"
#include "onnx_io/reader.h"

namespace sparsefuse {
namespace {

using Json = nlohmann::ordered_json;

Session Open(const std::filesystem::path& path, const Model& model, const EvalOptions& options) {
  const SessionOptions session = {
      .threads = ThreadCount(options.threads),
      .operator_library = OperatorLibraryFor(model, options.operator_library)};
  try {
    return Session(path, session);
  } catch (UserError& error) {
    throw error.InFile(path.string());
  }
}

TaskScore RequireMetric(TaskScore score, const Dataset& data, const EvalOptions& options) {
  if (score.metric != TaskMetric::kNone) return score;
  throw UserError(ErrorCode::kData,
                  data.has_labels() ? "the labels fit no output of the model"
                                    : "there are no labels: nothing to measure against",
                  data.has_labels() ? "see docs/cli.md for the shapes that each metric takes"
                                    : "add an array \"label\", or compare with --reference")
      .InFile(options.eval_data.string());
}

void PrintScore(const TaskScore& score, const Dataset& data, const EvalOptions& options) {
  const std::string_view name = MetricName(score.metric);
  const double value = score.Value();
  if (options.common.format == Format::kJson) {
    return PrintJson({{"model", options.model.string()},
                      {"samples", data.size()},
                      {"answers", score.count},
                      {"metric", {{"name", name}, {"value", value}}}});
  }
  Print(Line("model", Printable(options.model.string())) +
        Line("data", Plural(data.size(), "sample")) +
        Line(name, fmt::format("{:.4f} over {}", value, Plural(score.count, "answer"))));
}

void PrintComparison(const Scores& scores, const EvalOptions& options) {
  const WantedMetrics all({});
  if (options.common.format == Format::kJson) {
    Json json = {{"model", options.model.string()}, {"reference", options.reference.string()}};
    json.update(ToJson(scores, all));
    return PrintJson(json);
  }
  std::string text = Line("model", Printable(options.model.string())) +
                     Line("reference", Printable(options.reference.string())) +
                     Line("data", Plural(scores.samples, "sample"));
  for (const std::string& line : ScoreLines(scores, all)) text += line + "\n";
  Print(text);
}

}  // namespace

void Run(const EvalOptions& options) {
  const Model model = ReadModel(options.model);
  std::optional<Model> reference;
  if (!options.reference.empty()) reference = ReadModel(options.reference);
  const Dataset data = Dataset::Load(options.eval_data, model);
  for (const std::string& warning : data.warnings) {
    spdlog::warn("{}: {}", options.eval_data.string(), warning);
  }
  std::vector<int64_t> samples(static_cast<size_t>(data.size()));
  std::iota(samples.begin(), samples.end(), 0);
  const Progress progress = MakeProgress(options.common);
  const EvaluateOptions evaluate = {
      .progress = [&](int64_t done, int64_t total) { progress("evaluating", done, total); }};

  const Session session = Open(options.model, model, options);
  if (!reference) {
    return PrintScore(RequireMetric(EvaluateModel(session, data, samples, evaluate), data, options),
                      data, options);
  }
  const Session original = Open(options.reference, *reference, options);
  PrintComparison(
      MakeScores(CompareModels(original, session, data, samples, evaluate), "evaluation data",
                 data.size(), static_cast<uint64_t>(options.seed.value_or(0))),
      options);
}

}  // namespace sparsefuse

// Task metric and distances of a comparison, as reports show them and goals judge them.

#ifndef SPARSEFUSE_CLI_SCORES_H_
#define SPARSEFUSE_CLI_SCORES_H_

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "passes/engine/evaluate.h"

namespace sparsefuse {

// What is shown of one comparison.
struct Scores {
  std::string samples_of;  // "evaluation data", "audit split"
  int64_t samples = 0;
  Comparison comparison;
  Interval interval = {0, 0};  // of the metric's change; only with a metric

  bool has_metric() const { return comparison.candidate_score.metric != TaskMetric::kNone; }
  // How much worse the candidate is, as the goal max_drop counts it: accuracy and agreement
  // absolute, perplexity, mse and mae relative.
  double Drop() const;
  std::string_view DropName() const;  // "accuracy", "agreement", …
};

Scores MakeScores(Comparison comparison, std::string samples_of, int64_t samples, uint64_t seed);

// Names of evaluation.metrics; an empty list wants all. UserError E_DATA if a task metric is wanted
// that does not fit the data.
class WantedMetrics {
 public:
  explicit WantedMetrics(std::vector<std::string> names) : names_(std::move(names)) {}
  bool Has(std::string_view name) const;
  void Check(const Scores& scores) const;

 private:
  std::vector<std::string> names_;
};

// "accuracy   0.812 → 0.809       (−0.3 pp, 95 % interval −1.1 … +0.6; 8 of 872 answers changed)"
// and a line of distances.
std::vector<std::string> ScoreLines(const Scores& scores, const WantedMetrics& wanted);
nlohmann::ordered_json ToJson(const Scores& scores, const WantedMetrics& wanted);

}  // namespace sparsefuse

#endif  // SPARSEFUSE_CLI_SCORES_H_

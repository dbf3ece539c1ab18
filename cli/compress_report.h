// What a compression did, in one struct with two forms: for people and as JSON (also metrics.json).

#ifndef SPARSEFUSE_CLI_COMPRESS_REPORT_H_
#define SPARSEFUSE_CLI_COMPRESS_REPORT_H_

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "cli/latency.h"
#include "cli/scores.h"
#include "cli/text.h"
#include "passes/analysis/inventory.h"
#include "passes/framework/config.h"
#include "passes/framework/runner.h"

namespace sparsefuse {

struct GoalResult {
  std::string name;  // "max_drop", as in the configuration
  double wanted, reached;
  bool met() const { return reached <= wanted; }  // NaN is a miss
};

struct CompressReport {
  // The model that came in.
  std::string model;  // file name
  uint64_t model_bytes = 0;
  int64_t opset = 0;
  Inventory inventory;
  // Data; 0 samples: none was given.
  int64_t calibration_samples = 0;
  Splits splits;
  int64_t evaluation_samples = 0;
  bool evaluation_labelled = false;

  std::vector<PassReport> passes;

  // The model that came out.
  std::string output;  // path as given
  uint64_t output_bytes = 0;
  bool changed = false;      // false: cleaned at most, nothing compressed
  std::string kept_because;  // only if not changed
  bool custom_operators = false;
  Verification verification;
  std::optional<Verification> bodies;  // with the operator library against without
  std::optional<Scores> scores;
  std::vector<BatchLatency> latencies;  // model 0: the original, 1: the result
  std::string no_latency_because;
  std::vector<GoalResult> goals;
  double seconds = 0;
  int64_t peak_bytes = 0;
};

// The text before the passes and after them.
std::string IntroductionText(const CompressReport& report);
std::string PassText(const PassReport& pass, Detail detail);
std::string ResultText(const CompressReport& report, const WantedMetrics& wanted);

nlohmann::ordered_json ToJson(const CompressReport& report, const WantedMetrics& wanted);

}  // namespace sparsefuse

#endif  // SPARSEFUSE_CLI_COMPRESS_REPORT_H_

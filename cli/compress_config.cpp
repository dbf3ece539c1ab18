#include "cli/compress_config.h"

namespace sparsefuse {
namespace {

void CheckGoals(const Config& config) {
  const Config::Goal& goal = config.goal;
  const bool has_data = !config.calibration_data.path.empty() || !config.evaluation.path.empty();
  const auto refuse = [](const char* name, const char* needs) {
    throw UserError(ErrorCode::kUsage, fmt::format("the goal {} needs {}", name, needs));
  };
  if (goal.max_drop && !has_data) refuse("max_drop", "--eval-data or --calibration-data");
  if (goal.latency_ratio && !has_data) refuse("latency_ratio", "--calibration-data or --eval-data");
  if (goal.latency_ratio && !config.measure) refuse("latency_ratio", "\"measure\": true");
}

}  // namespace

NodePatterns ExcludedNodes(const std::vector<std::string>& expressions) {
  try {
    return NodePatterns(expressions);
  } catch (UserError& error) {
    error.code = ErrorCode::kUsage;
    throw error.At("--nodes-to-exclude");
  }
}

Config ConfigOf(const CompressOptions& options) {
  Config config = !options.config.empty()
                      ? LoadConfig(options.config)
                      : LoadPreset(options.preset.empty() ? "int8" : options.preset);
  if (!options.model.empty()) config.input_model = options.model;
  if (config.input_model.empty()) {
    throw UserError(ErrorCode::kUsage, "-m (the model) is missing",
                    "or name it in the configuration as \"input_model\"");
  }
  if (!options.calibration_data.empty()) config.calibration_data.path = options.calibration_data;
  if (!options.eval_data.empty()) config.evaluation.path = options.eval_data;
  if (options.max_drop) config.goal.max_drop = options.max_drop;
  if (options.target_size) config.goal.size_ratio = options.target_size;
  if (options.target_latency) config.goal.latency_ratio = options.target_latency;
  if (options.emit) config.output.emit = *options.emit;
  if (!options.targets.empty()) config.output.targets = options.targets;
  if (options.threads) config.threads = *options.threads;
  if (options.seed) {
    config.seed = static_cast<uint64_t>(*options.seed);
    config.calibration_data.seed = config.seed;
  }
  if (!options.nodes_to_exclude.empty()) {
    config.nodes_to_exclude = ExcludedNodes(options.nodes_to_exclude);
  }
  if (!options.op_types_to_exclude.empty()) {
    config.op_types_to_exclude = options.op_types_to_exclude;
  }
  CheckGoals(config);
  return config;
}

}  // namespace sparsefuse

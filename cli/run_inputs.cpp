#include "cli/run_inputs.h"

#include <spdlog/spdlog.h>

#include "cli/console.h"
#include "cli/system.h"
#include "onnx_io/reader.h"

namespace sparsefuse {
namespace {

std::optional<Dataset> LoadData(const std::filesystem::path& path, const Model& model) {
  if (path.empty()) return std::nullopt;
  Dataset data = Dataset::Load(path, model);
  for (const std::string& warning : data.warnings) spdlog::warn("{}: {}", path.string(), warning);
  return data;
}

}  // namespace

void LoadInputs(const Config& config, const CommonOptions& common, RunInputs& inputs) {
  inputs.teacher = ReadModel(config.input_model);
  inputs.calibration = LoadData(config.calibration_data.path, inputs.teacher);
  inputs.evaluation = LoadData(config.evaluation.path, inputs.teacher);

  Context& context = inputs.context;
  context.teacher = &inputs.teacher;
  if (inputs.calibration) {
    context.calibration = &*inputs.calibration;
    context.splits = MakeSplits(inputs.calibration->size(), config.calibration_data.seed,
                                config.calibration_data.samples);
  }
  context.threads = ThreadCount(config.threads);
  context.seed = config.seed;
  context.emit = config.output.emit;
  context.measure = config.measure;
  context.cache_folder = CacheFolder();
  context.exclude_nodes = config.nodes_to_exclude;
  context.exclude_op_types = config.op_types_to_exclude;
  context.decisions = config.decisions;
  context.progress = MakeProgress(common);
  for (const std::string& idle : IdleExclusions(context)) {
    spdlog::warn("{} matches no node of the model", idle);
  }
}

}  // namespace sparsefuse

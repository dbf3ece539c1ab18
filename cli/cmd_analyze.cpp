// analyze: the pass sensitivity alone, after lossless cleanup. Changes no model.

#include <fmt/format.h>

#include <optional>

#include "cli/commands.h"
#include "cli/compress_config.h"
#include "cli/compress_report.h"
#include "cli/console.h"
#include "cli/output_folder.h"
#include "cli/run_inputs.h"
#include "cli/sensitivity_text.h"
#include "cli/text.h"

namespace sparsefuse {
namespace {

constexpr std::string_view kPipeline = R"({"passes": [
  {"type": "raise-opset"}, {"type": "decompose"}, {"type": "fold-constants"}, {"type": "fold-batchnorm"},
  {"type": "fold-masks"}, {"type": "remove-dead"}, {"type": "sensitivity"}]})";

constexpr std::string_view kResults[] = {kSensitivityName};

Config ConfigOf(const AnalyzeOptions& options) {
  Config config = ParseConfig(kPipeline, "analyze", {});
  config.input_model = options.model;
  config.calibration_data.path = options.calibration_data;
  if (options.threads) config.threads = *options.threads;
  if (options.seed) {
    config.seed = static_cast<uint64_t>(*options.seed);
    config.calibration_data.seed = config.seed;
  }
  config.nodes_to_exclude = ExcludedNodes(options.nodes_to_exclude);
  config.op_types_to_exclude = options.op_types_to_exclude;
  return config;
}

}  // namespace

void Run(const AnalyzeOptions& options) {
  const Config config = ConfigOf(options);
  const Existing existing = options.overwrite ? Existing::kReplace : Existing::kRefuse;
  const std::vector<std::filesystem::path> files = {options.model, options.calibration_data};
  std::optional<OutputFolder> folder;
  if (!options.output.empty()) CheckOutputFolder(options.output, kResults, existing, files);
  RunInputs inputs;
  LoadInputs(config, options.common, inputs);
  const bool human = options.common.format == Format::kHuman;
  if (human) {
    Print(Line("model", Printable(options.model.filename().string())) +
          Line("data",
               fmt::format("{} (fit {}, select {})", Plural(inputs.calibration->size(), "sample"),
                           inputs.context.splits.fit.size(), inputs.context.splits.select.size())));
  }
  if (!options.output.empty()) folder.emplace(options.output, kResults, existing, files);
  Model model = inputs.teacher.Clone();
  const Detail detail = options.common.verbosity > 0 ? Detail::kEach : Detail::kGrouped;
  RunPasses(model, config.passes, inputs.context, {.finished = [&](const PassReport& pass) {
              if (human && pass.name == "sensitivity") Print(PassText(pass, detail));
            }});
  const nlohmann::json& found = inputs.context.sensitivity;
  if (folder) {
    folder->Stage(kSensitivityName, JsonText(found));
    folder->Publish();
  }
  if (!human) return PrintJson(found);
  Print(SensitivityText(found));
  if (folder) Print(Line("result", (options.output / kSensitivityName).string()));
}

}  // namespace sparsefuse

// compile: kernels for GPUs, made for the layers of one model.

#include <algorithm>

#include "cli/commands.h"
#include "cli/console.h"
#include "cli/cuda_code.h"
#include "cli/operator_library.h"
#include "onnx_io/reader.h"

namespace sparsefuse {

void Run(const CompileOptions& options) {
  const std::vector<const CudaTarget*> targets = FindCudaTargets(options.targets);
  const Model model = ReadModel(options.model);
  std::filesystem::path output = options.output;
  if (output.empty()) output = std::filesystem::absolute(options.model).parent_path();
  const std::vector<std::string> names = CudaFileNames(targets);
  const std::vector<std::string_view> results(names.begin(), names.end());
  const Existing existing = options.overwrite ? Existing::kReplace : Existing::kRefuse;
  CheckOutputFolder(output, results, existing, {options.model});
  CudaCode code;
  try {
    nlohmann::json decisions;
    code = CompileCudaCode(model,
                           {.targets = targets,
                            .rows = options.rows,
                            .measure = options.measure,
                            .library = FindCudaLibrary(options.operator_library)},
                           decisions, MakeProgress(options.common));
  } catch (UserError& error) {
    throw error.InFile(options.model.string());
  }
  ClearProgress();
  if (!code.layers.empty()) {
    OutputFolder folder(output, results, existing, {options.model});
    Stage(code, folder);
    folder.Publish();
  }
  if (options.common.format != Format::kHuman) return PrintJson(ToJson(code));
  const Detail detail = options.common.verbosity > 0 ? Detail::kEach : Detail::kGrouped;
  Print(CudaText(code, detail));
  if (!code.layers.empty()) Print(Line("result", output.string()));
}

}  // namespace sparsefuse

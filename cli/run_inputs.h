// The model and the data that a configuration names, and the context of a run over them.

#ifndef SPARSEFUSE_CLI_RUN_INPUTS_H_
#define SPARSEFUSE_CLI_RUN_INPUTS_H_

#include <optional>

#include "cli/command_line.h"
#include "onnx_io/model.h"
#include "passes/data/dataset.h"
#include "passes/framework/config.h"
#include "passes/framework/context.h"

namespace sparsefuse {

// Stays where it is: the context points to the rest.
struct RunInputs {
  RunInputs() = default;
  RunInputs(const RunInputs&) = delete;
  RunInputs& operator=(const RunInputs&) = delete;

  Model teacher;
  std::optional<Dataset> calibration, evaluation;
  Context context;
};

// UserErrors of ReadModel and Dataset::Load; warns of what is odd. Leaves context.operator_library.
void LoadInputs(const Config& config, const CommonOptions& common, RunInputs& inputs);

}  // namespace sparsefuse

#endif  // SPARSEFUSE_CLI_RUN_INPUTS_H_

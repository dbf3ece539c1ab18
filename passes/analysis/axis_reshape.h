// Reshape and Flatten: which factors of the input's axes each output axis consists of.

#ifndef SPARSEFUSE_PASSES_ANALYSIS_AXIS_RESHAPE_H_
#define SPARSEFUSE_PASSES_ANALYSIS_AXIS_RESHAPE_H_

#include "passes/analysis/axis_rules.h"

namespace sparsefuse {

void Reshape(AxisTracer& tracer, const Node& node);
void Flatten(AxisTracer& tracer, const Node& node);

}  // namespace sparsefuse

#endif  // SPARSEFUSE_PASSES_ANALYSIS_AXIS_RESHAPE_H_

// Times the forms of a linear layer in ONNX Runtime.

#ifndef SPARSEFUSE_PASSES_LATENCY_MEASURE_LAYER_H_
#define SPARSEFUSE_PASSES_LATENCY_MEASURE_LAYER_H_

#include <filesystem>

#include "passes/engine/engine.h"
#include "passes/latency/latency_table.h"

namespace sparsefuse {

// The shortest of interleaved runs, in sessions with these options. This tool's operators cannot
// run without options.operator_library; nor does MatMulNBits in an engine built without it. With
// the library its UserErrors pass.
MeasureLayer MeasureInEngine(const SessionOptions& options);

// The table of this machine for such sessions, remembered as latency.json in `folder`; empty:
// not remembered.
LatencyTable MachineLatencies(const SessionOptions& options, const std::filesystem::path& folder);

}  // namespace sparsefuse

#endif  // SPARSEFUSE_PASSES_LATENCY_MEASURE_LAYER_H_

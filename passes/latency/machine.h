// What the times of a layer depend on besides the layer.

#ifndef SPARSEFUSE_PASSES_LATENCY_MACHINE_H_
#define SPARSEFUSE_PASSES_LATENCY_MACHINE_H_

#include <string>

#include "passes/engine/engine.h"

namespace sparsefuse {

// "Intel(R) Xeon(R) …", as the system calls it; "unknown CPU" where it does not say.
std::string CpuModelName();

// CPU, its features, threads, the operator library's digest, ONNX Runtime's version and the
// variables that steer the library: whatever differs here has times of its own.
std::string DescribeMachine(const SessionOptions& options);

}  // namespace sparsefuse

#endif  // SPARSEFUSE_PASSES_LATENCY_MACHINE_H_

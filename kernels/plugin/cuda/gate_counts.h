// How many rows of nested layers could be gated on GPUs, and how many of them were.

#ifndef SPARSEFUSE_KERNELS_PLUGIN_CUDA_GATE_COUNTS_H_
#define SPARSEFUSE_KERNELS_PLUGIN_CUDA_GATE_COUNTS_H_

#include <cuda_runtime_api.h>

#include <cstdint>

#include "kernels/cuda/linear.h"

namespace sparsefuse::plugin {

// The current device's counts, in its memory: one for all layers, as long as the process lives.
// Kernels add to them.
cudaError_t FindGateCounts(cuda::GateCounts** counts) noexcept;

// Waits for nothing: counts runs that have ended, and perhaps parts of others.
void ReadGateCounts(int64_t* rows, int64_t* easy) noexcept;

}  // namespace sparsefuse::plugin

#endif  // SPARSEFUSE_KERNELS_PLUGIN_CUDA_GATE_COUNTS_H_

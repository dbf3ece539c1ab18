// CUDA source with kernels for the layers of one model: the library's own kernels with the layer's
// sizes, pattern, activation and types as constants.

#ifndef SPARSEFUSE_PASSES_CUDA_SOURCE_H_
#define SPARSEFUSE_PASSES_CUDA_SOURCE_H_

#include <span>
#include <string>
#include <vector>

#include "passes/cuda/cost.h"

namespace sparsefuse {

// A layer with the tile chosen for it.
cuda::Instance InstanceOf(const CudaLayer& layer, int32_t tile_panels, const CudaTarget& target);

// The names of an instance's kernels on a target.
std::vector<std::string> KernelNames(const cuda::Instance& instance, const CudaTarget& target);

// One file, which includes the headers of kernels/cuda/headers.h; kernels that several instances
// share are written once.
std::string CudaSource(std::span<const cuda::Instance> instances, const CudaTarget& target);

}  // namespace sparsefuse

#endif  // SPARSEFUSE_PASSES_CUDA_SOURCE_H_

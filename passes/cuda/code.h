// The pattern compiler: from a model's linear layers to compiled kernels for named architectures.

#ifndef SPARSEFUSE_PASSES_CUDA_CODE_H_
#define SPARSEFUSE_PASSES_CUDA_CODE_H_

#include <span>
#include <string>
#include <vector>

#include "passes/cuda/cost.h"

namespace sparsefuse {

// Targets by name: "cuda:sm_90a". UserError E_USAGE with those that there are.
std::vector<const CudaTarget*> FindCudaTargets(std::span<const std::string> names);

// What is going to be compiled for one target.
struct CudaPlan {
  const CudaTarget* target;
  std::vector<int32_t> tile_panels;  // of each layer
  std::string source;
  int64_t kernels = 0;

  std::string file() const { return cuda::CodeFileName(target->name); }
};

// rows: that tiles are chosen for, > 16.
CudaPlan PlanCudaCode(std::span<const CudaLayer> layers, const CudaTarget& target, int64_t rows);

}  // namespace sparsefuse

#endif  // SPARSEFUSE_PASSES_CUDA_CODE_H_

// Code that was compiled for the layers of one model (passes/cuda), in a process that runs it.

#ifndef SPARSEFUSE_KERNELS_CUDA_CODE_H_
#define SPARSEFUSE_KERNELS_CUDA_CODE_H_

#include <cuda_runtime_api.h>

#include "kernels/cuda/instance.h"
#include "kernels/cuda/linear.h"

namespace sparsefuse::cuda {

class Code {
 public:
  Code() = default;
  ~Code();  // nothing that it gave out may be used any more
  Code(const Code&) = delete;
  Code& operator=(const Code&) = delete;

  // A model-sm_….cubin for the current device; once. The runtime's errors, and
  // cudaErrorInvalidKernelImage for code that was made from other headers than this library.
  cudaError_t Load(const void* image) noexcept;

  // What there is for a layer on that device. The layer's plan must be made once more where tiles
  // take fewer panels than the given plan's (plan.h, most_panels); then the kernels can be put into
  // the prepared layer.
  struct Found {
    MadeKernels made;
    int32_t tile_panels;
  };
  Found Find(const LinearShape& shape, const Plan& plan, Activation activation, bool half) const;

 private:
  cudaKernel_t Kernel(const Instance& instance, Step step) const;

  cudaLibrary_t library_ = nullptr;
  bool is_sm90_ = false;
  Room room_ = Room::kLarge;
};

}  // namespace sparsefuse::cuda

#endif  // SPARSEFUSE_KERNELS_CUDA_CODE_H_

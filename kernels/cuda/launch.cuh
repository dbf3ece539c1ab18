// How this folder's kernels are launched.

#ifndef SPARSEFUSE_KERNELS_CUDA_LAUNCH_CUH_
#define SPARSEFUSE_KERNELS_CUDA_LAUNCH_CUH_

#include <cuda_runtime.h>

#include <cstdint>
#include <type_traits>

namespace sparsefuse::cuda {

// made: launched in the kernel's place unless null; it has the same parameters.
// overlaps: the kernel may start while the one before it in the stream still runs, and waits for
// that one itself before it touches what the other wrote.
template <typename... Parameters, typename... Arguments>
cudaError_t LaunchKernel(void (*kernel)(Parameters...), cudaKernel_t made, int64_t blocks,
                         int64_t threads, int shared_bytes, bool overlaps, cudaStream_t stream,
                         const Arguments&... arguments) {
  static_assert((std::is_same_v<Parameters, Arguments> && ...));
  const void* const function =
      made ? static_cast<const void*>(made) : reinterpret_cast<const void*>(kernel);
  // The limit belongs to the current device, so it is set anew each time (a fraction of a launch).
  const cudaError_t allowed =
      cudaFuncSetAttribute(function, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes);
  if (allowed != cudaSuccess) return allowed;
  cudaLaunchAttribute overlap{};
  overlap.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  overlap.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(blocks));
  config.blockDim = dim3(static_cast<unsigned>(threads));
  config.dynamicSmemBytes = static_cast<size_t>(shared_bytes);
  config.stream = stream;
  config.attrs = &overlap;
  config.numAttrs = overlaps ? 1 : 0;
  void* values[] = {const_cast<void*>(static_cast<const void*>(&arguments))...};
  return cudaLaunchKernelExC(&config, function, values);
}

}  // namespace sparsefuse::cuda

#endif  // SPARSEFUSE_KERNELS_CUDA_LAUNCH_CUH_

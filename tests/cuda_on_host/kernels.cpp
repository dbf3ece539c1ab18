// The GPU's kernels and what launches them, compiled for the host; and the part of
// CUDA's runtime that they and the tests call.

#include "tests/cuda_on_host/launch_on_host.h"
//
#include <cuda_fp16.h>
#include <dlfcn.h>

#include <cstdlib>

#include "kernels/cuda/code.h"
#include "tests/cuda_on_host/device_on_host.h"
#undef __launch_bounds__
#define __launch_bounds__(...)
#undef __grid_constant__
#define __grid_constant__
// What blocks of threads share is static, unless it is declared elsewhere (launch_on_host.h).
#undef __shared__
#define __shared__ static
#include "kernels/cuda/quantize.cu"
#undef __shared__
#define __shared__
#include "kernels/cuda/code.cu"
#include "kernels/cuda/decode.cu"
#include "kernels/cuda/linear.cu"
#include "kernels/cuda/prefill.cu"
#define __CUDA_ARCH_FEAT_SM90_ALL
#include "kernels/cuda/prefill_sm90.cu"
#include "kernels/cuda/skip_zeros.cu"
// Kernels for some layers, by write_source.cpp.
#include "cuda_on_host/compiled_layers.inc"

namespace sparsefuse {
namespace cuda {}  // namespace cuda

namespace test {
namespace {

DeviceOnHost device{};

}  // namespace

void UseDeviceOnHost(const DeviceOnHost& one) {
  device = one;
  cuda::copies_are_late = one.copies_are_late;
  test::last_first = one.last_first;
}

}  // namespace test
}  // namespace sparsefuse

cudaError_t cudaGetDevice(int* number) {
  *number = 0;
  return cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  switch (attribute) {
    case cudaDevAttrComputeCapabilityMajor:
      *value = sparsefuse::test::device.major;
      return cudaSuccess;
    case cudaDevAttrComputeCapabilityMinor:
      *value = sparsefuse::test::device.minor;
      return cudaSuccess;
    case cudaDevAttrMultiProcessorCount:
      *value = 3;
      return cudaSuccess;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor:
      *value = sparsefuse::test::device.shared_kib << 10;
      return cudaSuccess;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
      *value = (sparsefuse::test::device.shared_kib - 1) << 10;
      return cudaSuccess;
    default:
      return cudaErrorInvalidValue;
  }
}
// The one library is this program.
cudaError_t cudaLibraryLoadData(cudaLibrary_t* library, const void*, cudaJitOption*, void**,
                                unsigned, cudaLibraryOption*, void**, unsigned) {
  *library = reinterpret_cast<cudaLibrary_t>(dlopen(nullptr, RTLD_NOW));
  return cudaSuccess;
}
cudaError_t cudaLibraryUnload(cudaLibrary_t library) {
  dlclose(library);
  return cudaSuccess;
}
cudaError_t cudaLibraryGetKernel(cudaKernel_t* kernel, cudaLibrary_t library, const char* name) {
  *kernel = reinterpret_cast<cudaKernel_t>(dlsym(library, name));
  return *kernel ? cudaSuccess : cudaErrorSymbolNotFound;
}
cudaError_t cudaGetLastError() { return cudaSuccess; }
cudaError_t cudaMalloc(void** memory, size_t bytes) {
  // Not a byte more, so that a sanitizer sees what is read beyond.
  return posix_memalign(memory, 256, bytes) == 0 ? cudaSuccess : cudaErrorMemoryAllocation;
}
cudaError_t cudaFree(void* memory) {
  std::free(memory);
  return cudaSuccess;
}
cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind) {
  if (bytes > 0) std::memcpy(to, from, bytes);
  return cudaSuccess;
}
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t) {
  return cudaMemcpy(to, from, bytes, kind);
}
cudaError_t cudaMemset(void* memory, int byte, size_t bytes) {
  std::memset(memory, byte, bytes);
  return cudaSuccess;
}
cudaError_t cudaDeviceSynchronize() { return cudaSuccess; }
const char* cudaGetErrorString(cudaError_t) { return "an error of CUDA's on the host"; }

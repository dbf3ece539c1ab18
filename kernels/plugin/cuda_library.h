// What libsparsefuse_cuda.so exports for libsparsefuse_ops.so, which loads it where ONNX Runtime
// has the CUDA provider. The two must be of one build.

#ifndef SPARSEFUSE_KERNELS_PLUGIN_CUDA_LIBRARY_H_
#define SPARSEFUSE_KERNELS_PLUGIN_CUDA_LIBRARY_H_

#include <onnxruntime_c_api.h>

#include <cstdint>

namespace sparsefuse::plugin {

inline constexpr char kCudaLibrary[] = "libsparsefuse_cuda.so";
inline constexpr char kCudaProvider[] = "CUDAExecutionProvider";  // as ONNX Runtime calls it

// Version and commit.
const char* Build() noexcept;

// Adds the operators for the CUDA provider to a domain. An error, and nothing added, where `build`
// is not the library's own; so `build` comes first in every build, whatever else changes.
inline constexpr char kAddCudaOps[] = "SparsefuseAddCudaOps";
using AddCudaOps = OrtStatus*(const char* build, const OrtApi* api, OrtCustomOpDomain* domain);

// Rows of nested layers that could be gated since the library was loaded, and how many of them were
// read in 4 bits: of runs that have ended.
inline constexpr char kCudaGateCounts[] = "SparsefuseCudaGateCounts";
using CudaGateCounts = void(int64_t* rows, int64_t* easy);

}  // namespace sparsefuse::plugin

#endif  // SPARSEFUSE_KERNELS_PLUGIN_CUDA_LIBRARY_H_

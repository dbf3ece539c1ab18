// The operators for ONNX Runtime's CUDA provider, from the library beside this one.

#ifndef SPARSEFUSE_KERNELS_PLUGIN_CPU_LOAD_CUDA_H_
#define SPARSEFUSE_KERNELS_PLUGIN_CPU_LOAD_CUDA_H_

#include <onnxruntime_c_api.h>

#include <cstdint>

namespace sparsefuse::plugin {

// Adds them to the domain. Nothing is loaded where this ONNX Runtime has no CUDA provider or the
// library is not there: nodes then run on the CPU. One that is there and cannot be loaded is an
// error.
OrtStatus* AddCudaOpsTo(OrtCustomOpDomain* domain, const OrtApi& api) noexcept;

// Adds what the library counted, if it was loaded.
void AddCudaGateCounts(int64_t& rows, int64_t& easy) noexcept;

}  // namespace sparsefuse::plugin

#endif  // SPARSEFUSE_KERNELS_PLUGIN_CPU_LOAD_CUDA_H_

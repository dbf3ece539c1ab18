// Kernels that were compiled for a model's layers (`sparsefuse compile`), in the folder that
// SPARSEFUSE_CUDA_CODE names.

#ifndef SPARSEFUSE_KERNELS_PLUGIN_CUDA_COMPILED_CODE_H_
#define SPARSEFUSE_KERNELS_PLUGIN_CUDA_COMPILED_CODE_H_

#include <onnxruntime_c_api.h>

#include <string>

#include "kernels/cuda/code.h"

namespace sparsefuse::plugin {

// "sm_90a": what code for the device is compiled for.
std::string ArchitectureOf(const cuda::Device& device);

// The folder's code for the current device, loaded when it is first asked for and kept as long as
// the process lives; null where the variable is not set. A folder without code for the device, and
// code of another build, are errors.
OrtStatus* FindCompiledCode(const OrtApi& api, const cuda::Code** code) noexcept;

}  // namespace sparsefuse::plugin

#endif  // SPARSEFUSE_KERNELS_PLUGIN_CUDA_COMPILED_CODE_H_

// CUDA's compiler, run as a program: nothing of CUDA is linked, and no GPU is needed.

#ifndef SPARSEFUSE_PASSES_CUDA_COMPILER_H_
#define SPARSEFUSE_PASSES_CUDA_COMPILER_H_

#include <filesystem>
#include <string>
#include <string_view>

namespace sparsefuse {

// $CUDA_HOME/bin/nvcc if that is set, else nvcc on the path, else /usr/local/cuda/bin/nvcc.
// UserError E_READ if there is none.
std::filesystem::path FindCudaCompiler();

// The code of `source` (source.h) for one architecture, as the driver loads it. UserError E_ENGINE
// with the compiler's first error, E_WRITE where it has no room for its files.
std::string CompileCuda(const std::filesystem::path& compiler, std::string_view source,
                        std::string_view architecture);

}  // namespace sparsefuse

#endif  // SPARSEFUSE_PASSES_CUDA_COMPILER_H_

// Where libsparsefuse_ops.so lies.

#ifndef SPARSEFUSE_CLI_OPERATOR_LIBRARY_H_
#define SPARSEFUSE_CLI_OPERATOR_LIBRARY_H_

#include <cstdint>
#include <filesystem>

#include "onnx_io/model.h"

namespace sparsefuse {

inline constexpr std::string_view kOperatorLibraryName = "libsparsefuse_ops.so";

// The operators for ONNX Runtime's CUDA provider; the library above loads it from its own folder.
inline constexpr std::string_view kCudaLibraryName = "libsparsefuse_cuda.so";

// `named` if it is not empty; else ../lib or the folder of this program's file. UserError E_READ if
// there is none.
std::filesystem::path FindOperatorLibrary(const std::filesystem::path& named);

// The other library from beside that one; empty where it is not there: built without CUDA.
std::filesystem::path FindCudaLibrary(const std::filesystem::path& named);

// What a session of `model` needs: `named`; else nothing where the model has none of this tool's
// operators; else the tool's own. Without it the operators' function bodies run, with a warning. A
// library that lies beside a model is never loaded unasked: the model may be a stranger's.
std::filesystem::path OperatorLibraryFor(const Model& model, const std::filesystem::path& named);

// Rows of nested layers that could be gated in this process's sessions, and how many of them were
// read in 4 bits. Zeros where the library is not loaded.
struct GateCounts {
  int64_t rows = 0, easy = 0;
};
GateCounts ReadGateCounts(const std::filesystem::path& library);

}  // namespace sparsefuse

#endif  // SPARSEFUSE_CLI_OPERATOR_LIBRARY_H_

// Where libsparsefuse_ops.so lies.

#ifndef SPARSEFUSE_CLI_OPERATOR_LIBRARY_H_
#define SPARSEFUSE_CLI_OPERATOR_LIBRARY_H_

#include <filesystem>

#include "onnx_io/model.h"

namespace sparsefuse {

inline constexpr std::string_view kOperatorLibraryName = "libsparsefuse_ops.so";

// `named` if it is not empty; else ../lib or the folder of this program's file. UserError E_READ if
// there is none.
std::filesystem::path FindOperatorLibrary(const std::filesystem::path& named);

// What a session of `model` needs: `named`; else nothing where the model has none of this tool's
// operators; else the tool's own. Without it the operators' function bodies run, with a warning. A
// library that lies beside a model is never loaded unasked: the model may be a stranger's.
std::filesystem::path OperatorLibraryFor(const Model& model, const std::filesystem::path& named);

}  // namespace sparsefuse

#endif  // SPARSEFUSE_CLI_OPERATOR_LIBRARY_H_

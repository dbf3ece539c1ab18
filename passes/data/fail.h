// How the readers of data refuse it.

#ifndef SPARSEFUSE_PASSES_DATA_FAIL_H_
#define SPARSEFUSE_PASSES_DATA_FAIL_H_

#include <string>
#include <utility>

#include "onnx_io/error.h"

namespace sparsefuse {

// Throws UserError of E_DATA.
[[noreturn]] inline void FailData(std::string what, std::string hint = {}) {
  throw UserError(ErrorCode::kData, std::move(what), std::move(hint));
}

}  // namespace sparsefuse

#endif  // SPARSEFUSE_PASSES_DATA_FAIL_H_

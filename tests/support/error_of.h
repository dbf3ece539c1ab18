// For tests of what is refused: the error as one line.

#ifndef SPARSEFUSE_TESTS_SUPPORT_ERROR_OF_H_
#define SPARSEFUSE_TESTS_SUPPORT_ERROR_OF_H_

#include <string>

#include "onnx_io/error.h"
#include "tests/support/catch.h"

namespace sparsefuse::test {

// Runs `action`, which must throw a UserError with this code, and returns its Line().
template <typename Action>
std::string ErrorOf(ErrorCode code, const Action& action) {
  try {
    action();
  } catch (const UserError& error) {
    CHECK(ErrorName(error.code) == ErrorName(code));
    return error.Line();
  }
  FAIL_CHECK("no error, expected " << ErrorName(code));
  return {};
}

}  // namespace sparsefuse::test

#endif  // SPARSEFUSE_TESTS_SUPPORT_ERROR_OF_H_

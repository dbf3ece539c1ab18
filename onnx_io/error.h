// The two kinds of errors of the program. Libraries throw; only cli/main.cpp catches, prints the
// line and exits.

#ifndef SPARSEFUSE_ONNX_IO_ERROR_H_
#define SPARSEFUSE_ONNX_IO_ERROR_H_

#include <fmt/format.h>

#include <exception>
#include <string>
#include <string_view>
#include <vector>

namespace sparsefuse {

// Append-only; each is described in docs/errors.md and raised by a test.
enum class ErrorCode {
  kInternal,      // E_INTERNAL      exit 1   a bug
  kUsage,         // E_USAGE         exit 2   command line
  kConfig,        // E_CONFIG        exit 2   configuration file
  kModel,         // E_MODEL         exit 3   model file: not ONNX, truncated, inconsistent graph
  kTensor,        // E_TENSOR        exit 3   a tensor's bytes do not fit its type and shape
  kPath,          // E_PATH          exit 3   external data outside the model's directory
  kData,          // E_DATA          exit 3   calibration or evaluation data
  kUnsupported,   // E_UNSUPPORTED   exit 4   valid, but not supported
  kRead,          // E_READ          exit 5   input missing or unreadable
  kChanged,       // E_CHANGED       exit 5   input changed while being read
  kOutputExists,  // E_OUTPUT_EXISTS exit 6   needs --overwrite
  kWrite,         // E_WRITE         exit 6   output not writable, disk full
  kLimit,         // E_LIMIT         exit 7   a resource limit or time-out
  kVerify,        // E_VERIFY        exit 8   verification failed, nothing published
  kGoal,          // E_GOAL          exit 9   finished, a goal was missed
  kEngine,        // E_ENGINE        exit 10  ONNX Runtime failed
  kBusy,          // E_BUSY          exit 11  output is being written by another run
};

std::string_view ErrorName(ErrorCode code) noexcept;  // "E_TENSOR"
int ExitCode(ErrorCode code) noexcept;

// Everything that a user can cause or mend. `file` is filled in by whoever knows it (the reader,
// the config parser); `where` names the object inside it: `node "x" (MatMul)`, `initializer "W"`,
// `$.passes[1].weights`. `what` says what was found and what was expected; `hint` what to do.
class UserError : public std::exception {
 public:
  UserError(ErrorCode code, std::string what, std::string hint = {})
      : code(code), message(std::move(what)), hint(std::move(hint)) {}

  UserError& InFile(std::string_view path) {
    if (file.empty()) file = path;
    return *this;
  }
  UserError& At(std::string_view object) {
    if (where.empty()) where = object;
    return *this;
  }

  // `E_TENSOR` line without the program's name: "model.onnx: initializer "W": what; hint".
  // Control characters are escaped.
  std::string Line() const;
  const char* what() const noexcept override { return message.c_str(); }

  ErrorCode code;
  std::string file;
  std::string where;
  std::string message;
  std::string hint;
};

// A broken promise of our own code.
class InternalError : public std::exception {
 public:
  explicit InternalError(std::string what) : message_(std::move(what)) {}
  const char* what() const noexcept override { return message_.c_str(); }

 private:
  std::string message_;
};

// `text` with control characters, quotes and invalid UTF-8 escaped, cut at 200 characters: for
// names that come from files.
std::string Printable(std::string_view text);

bool IsUtf8(std::string_view text) noexcept;

// The entry of `known` nearest to `word` by edit distance, empty when none is near: "did you mean".
std::string Nearest(std::string_view word, const std::vector<std::string>& known);

}  // namespace sparsefuse

// Checks an invariant of our own; throws InternalError.
#define SF_CHECK(condition, ...)                                                              \
  do {                                                                                        \
    if (!(condition)) {                                                                       \
      throw ::sparsefuse::InternalError(::fmt::format("{}:{}: check failed: {} {}", __FILE__, \
                                                      __LINE__, #condition,                   \
                                                      ::fmt::format("" __VA_ARGS__)));        \
    }                                                                                         \
  } while (false)

#endif  // SPARSEFUSE_ONNX_IO_ERROR_H_

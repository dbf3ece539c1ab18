// Every error code is documented, and raised by a test.

#include "onnx_io/error.h"
#include "tests/cli/fixtures.h"
#include "tests/support/catch.h"

namespace sparsefuse::test {
namespace {

namespace fs = std::filesystem;

TEST_CASE("each error code stands in docs/errors.md with its exit code, and in a test") {
  const std::string page = ReadFile(SourceDir() / "docs/errors.md");
  std::string tests;
  for (const auto& entry : fs::recursive_directory_iterator(SourceDir() / "tests")) {
    if (entry.path().extension() == ".cpp") tests += ReadFile(entry.path());
  }
  constexpr int kCodes = static_cast<int>(ErrorCode::kBusy) + 1;
  for (int i = 0; i < kCodes; ++i) {
    const ErrorCode code = static_cast<ErrorCode>(i);
    const std::string name(ErrorName(code));
    INFO(name);
    CHECK(Contains(page, fmt::format("| `{}` | {} |", name, ExitCode(code))));
    CHECK(Contains(tests, '"' + name + '"'));
  }
}

TEST_CASE("a bug has a code of its own, which no input of ours leads to") {
  CHECK(ErrorName(ErrorCode::kInternal) == "E_INTERNAL");
  CHECK(ExitCode(ErrorCode::kInternal) == 1);
}

TEST_CASE("every command is described in docs/cli.md") {
  const std::string page = ReadFile(SourceDir() / "docs/cli.md");
  for (const char* verb :
       {"compress", "compile", "eval", "benchmark", "inspect", "passes", "kernels"}) {
    INFO(verb);
    CHECK(Contains(page, fmt::format("## {}", verb)));
    // Each of its flags.
    const std::string help = RunTool({verb, "--help"}).out;
    for (size_t at = help.find("--"); at != std::string::npos; at = help.find("--", at + 2)) {
      const size_t end = help.find_first_not_of("abcdefghijklmnopqrstuvwxyz-", at);
      const std::string flag = help.substr(at, end - at);
      INFO(flag);
      CHECK(Contains(page, '`' + flag));
    }
  }
}

}  // namespace
}  // namespace sparsefuse::test

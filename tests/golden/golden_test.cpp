// Runs tests/golden/<pass>/*.txt. SPARSEFUSE_UPDATE_GOLDENS=1 rewrites what they expect; one file:
// test_golden -c fold-batchnorm/second_use_is_kept.txt

#include "tests/golden/golden.h"

#include <algorithm>
#include <cstdlib>
#include <filesystem>

#include "tests/support/catch.h"
#include "tests/support/support.h"

namespace sparsefuse::test {
namespace {

namespace fs = std::filesystem;

std::vector<fs::path> GoldenFiles() {
  std::vector<fs::path> files;
  for (const auto& entry : fs::recursive_directory_iterator(SourceDir() / "tests/golden")) {
    if (entry.path().extension() == ".txt") files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end());
  return files;
}

bool Updating() {
  const char* value = std::getenv("SPARSEFUSE_UPDATE_GOLDENS");
  return value && std::string_view(value) == "1";
}

void CheckFile(const fs::path& file) {
  const Golden golden = ParseGolden(ReadFile(file));
  CHECK(golden.pass == file.parent_path().filename().string());
  const PassInfo* pass = FindPass(golden.pass);
  if (!pass) FAIL("no pass is called " << golden.pass);
  const GoldenResult result = RunGolden(golden, *pass);
  for (const std::string& problem : result.problems) FAIL_CHECK(problem);
  if (Matches(golden.expectation, result.outcome)) return;
  if (Updating()) {
    WriteFile(file, golden.given + result.outcome);
    WARN("rewritten");
  } else {
    FAIL_CHECK("expected:\n" << golden.expectation << "got:\n" << result.outcome);
  }
}

TEST_CASE("passes do to models what their golden files say") {
  for (const fs::path& file : GoldenFiles()) {
    const std::string name = file.parent_path().filename() / file.filename();
    DYNAMIC_SECTION(name) {
      INFO("tests/golden/" << name);
      try {
        CheckFile(file);
      } catch (const UserError& error) {
        FAIL_CHECK(error.Line());
      }
    }
  }
}

}  // namespace
}  // namespace sparsefuse::test

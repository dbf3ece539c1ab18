// Shared by all tests.

#ifndef SPARSEFUSE_TESTS_SUPPORT_SUPPORT_H_
#define SPARSEFUSE_TESTS_SUPPORT_SUPPORT_H_

#include <cstdlib>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace sparsefuse::test {

// The checkout's root, tests/data below it.
std::filesystem::path SourceDir();

// ../shared/assets beside the checkout, or nothing after printing a line that the calling test was
// skipped: `auto assets = Assets(); if (!assets) return;`
std::optional<std::filesystem::path> Assets();

// A fresh directory, removed with the object.
class TempDir {
 public:
  TempDir();
  ~TempDir();
  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path operator/(std::string_view name) const { return path_ / name; }

 private:
  std::filesystem::path path_;
};

std::string ReadFile(const std::filesystem::path& path);
void WriteFile(const std::filesystem::path& path, std::string_view bytes);

// When it does not, a failing assertion around the call shows the text.
bool Contains(const std::string& text, std::string_view part);

// $XDG_CACHE_HOME of the programs that this process runs: what they remember lasts as long as it.
std::filesystem::path CacheHome();

// An environment variable for as long as the object lives; null: not set. Programs started
// meanwhile see it.
class EnvironmentVariable {
 public:
  EnvironmentVariable(const char* name, const char* value) : name_(name) {
    if (const char* old = std::getenv(name)) old_ = old;
    Set(value);
  }
  ~EnvironmentVariable() { Set(old_ ? old_->c_str() : nullptr); }
  EnvironmentVariable(const EnvironmentVariable&) = delete;
  EnvironmentVariable& operator=(const EnvironmentVariable&) = delete;

 private:
  void Set(const char* value) { value ? setenv(name_, value, 1) : unsetenv(name_); }

  const char* name_;
  std::optional<std::string> old_;
};

// Runs a program with arguments (no shell), standard input empty.
struct RunResult {
  int exit_code;  // 128 + signal if it was killed
  std::string out, err;
};
RunResult RunProgram(const std::vector<std::string>& argv,
                     const std::filesystem::path& working_directory = {});
// The sparsefuse tool of this build.
RunResult RunTool(std::vector<std::string> arguments,
                  const std::filesystem::path& working_directory = {});

}  // namespace sparsefuse::test

#endif  // SPARSEFUSE_TESTS_SUPPORT_SUPPORT_H_

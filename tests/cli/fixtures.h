// A folder with a small model and its data, and the checks that every test of the command line
// makes.

#ifndef SPARSEFUSE_TESTS_CLI_FIXTURES_H_
#define SPARSEFUSE_TESTS_CLI_FIXTURES_H_

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "onnx_io/model.h"
#include "tests/support/support.h"

namespace sparsefuse::test {

// x float [batch, 64] → MatMul 64→96 → Relu → MatMul 96→32 → y; weights drawn from `seed`.
Model SmallClassifier(uint64_t seed = 1);
// `samples` inputs for it, an .npz; with labels: the model's class for most of them.
std::string SmallData(int64_t samples, bool labels);

// In a fresh folder: model.onnx, calibration.npz (96 samples), evaluation.npz (128, labelled), and
// fast.json: preset int8's quantisation without timing.
class Workplace {
 public:
  Workplace();
  std::string operator/(std::string_view name) const { return (dir_.path() / name).string(); }
  const std::filesystem::path& path() const { return dir_.path(); }
  // compress of this model with fast.json to "out", then `more`.
  std::vector<std::string> Compress(const std::vector<std::string>& more = {}) const;

 private:
  TempDir dir_;
};

// Every file below `folder` with its bytes, "name\n" for folders: equal before and after means that
// nothing was written.
std::string Snapshot(const std::filesystem::path& folder);

// Runs the tool and checks that it fails as documented: exit code, nothing on stdout, one line on
// stderr that starts with the code and has `text` in it. Returns the line.
std::string CheckFails(const std::vector<std::string>& arguments, std::string_view code,
                       int exit_code, std::string_view text,
                       const std::filesystem::path& working_directory = {});

bool Contains(std::string_view text, std::string_view part);

}  // namespace sparsefuse::test

#endif  // SPARSEFUSE_TESTS_CLI_FIXTURES_H_

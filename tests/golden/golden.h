// Golden tests of passes: a model in ONNX's text syntax, a pass, and what becomes of it.
// docs/testing.md describes the files.

#ifndef SPARSEFUSE_TESTS_GOLDEN_GOLDEN_H_
#define SPARSEFUSE_TESTS_GOLDEN_GOLDEN_H_

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "passes/framework/pass.h"

namespace sparsefuse::test {

struct Golden {
  std::string given;        // everything before "# EXPECT", verbatim
  std::string expectation;  // from there on
  std::string pass;
  nlohmann::json params = nlohmann::json::object();
  Params context;          // emit, samples, nodes_to_exclude, op_types_to_exclude
  bool idempotent = true;  // false: "# ONCE reason"
  bool runs = true;        // false: "# NO ENGINE reason"
};

// UserError E_CONFIG with the line for a file that is not of that form.
Golden ParseGolden(std::string_view text);

// `{…}` or `{...}` after `float[4,3] w =` becomes seeded values in [−1, 1), `{+…}` values in
// [0.1, 1.1); the same for double. They follow from the name.
std::string FillTensors(const std::string& text);

struct GoldenResult {
  std::string outcome;                // in the form of an expectation
  std::vector<std::string> problems;  // what held for every pass and did not
};
GoldenResult RunGolden(const Golden& golden, const PassInfo& pass);

// Equal but for space at the end; of errors the code must be equal and the text contained. An
// expectation may have its findings on the first line: `# EXPECT unchanged; skipped: "c" (reason)`.
bool Matches(const std::string& expectation, const std::string& outcome);

}  // namespace sparsefuse::test

#endif  // SPARSEFUSE_TESTS_GOLDEN_GOLDEN_H_

// Runs the configured passes on the student, and alone does what every pass needs: timing, peak
// memory, checks after each pass, dumps, and the pass's name in errors.

#ifndef SPARSEFUSE_PASSES_FRAMEWORK_RUNNER_H_
#define SPARSEFUSE_PASSES_FRAMEWORK_RUNNER_H_

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "passes/framework/config.h"
#include "passes/framework/verify.h"

namespace sparsefuse {

struct PassReport {
  std::string name;
  PassStats stats;
  Verification verification;
  double seconds = 0;                                        // of the pass itself
  double verify_seconds = 0;                                 // of the checks after it
  int64_t peak_bytes = 0;                                    // largest resident set during the pass
  uint64_t weight_bytes_before = 0, weight_bytes_after = 0;  // Model::WeightBytes
};

struct RunnerOptions {
  const Reference* reference = nullptr;  // of the teacher; null: made here
  double min_cosine = 0.95;              // of lossy passes, against the teacher
  std::string dump_after;                // a pass's name or "all"; empty: no dumps
  std::filesystem::path dump_directory;  // made if missing; files like 03-quantize.txt, and with
                                         // "all" 00-input.txt
  std::function<void(const PassReport&)> finished;  // called after each pass; may be empty
};

// The changed-flag is not checked for models whose inline weights (in Constant nodes, subgraphs and
// functions) exceed this: they would have to be serialized and held twice.
inline constexpr uint64_t kMostInlineBytesCompared = uint64_t{256} << 20;

// After each pass that changed something: structure (Verify), signature, and answers against the
// teacher's, as exact as the least exact pass so far that changed something. After one that says it
// changed nothing: that this is so.
// UserErrors of a pass come with "pass 3/6 quantize" before their place; E_VERIFY for a failed
// check; InternalError for a changed-flag that lies. E_USAGE for a dump_after that is not in the
// pipeline. The student is of no use after an exception. A dump is written before the checks.
std::vector<PassReport> RunPasses(Model& student, const std::vector<ConfiguredPass>& passes,
                                  Context& context, const RunnerOptions& options = {});

// The serialized model in comparable form: small things by value, large initializers of the main
// graph by identity or content.
class ModelSnapshot {
 public:
  explicit ModelSnapshot(const Model& model);
  bool operator==(const ModelSnapshot& other) const;

 private:
  std::vector<LeftOutTensor> large_;  // before bytes_, whose initialisation fills it
  std::string bytes_;
};

}  // namespace sparsefuse

#endif  // SPARSEFUSE_PASSES_FRAMEWORK_RUNNER_H_

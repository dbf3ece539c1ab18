// What a pass may read besides the model: borrowed, built once per run by the command.

#ifndef SPARSEFUSE_PASSES_FRAMEWORK_CONTEXT_H_
#define SPARSEFUSE_PASSES_FRAMEWORK_CONTEXT_H_

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

#include "onnx_io/model.h"
#include "passes/data/dataset.h"

namespace sparsefuse {

enum class Emit { kCustom, kStandard };  // our operators with function bodies, or standard ones only

// Called by long steps: done and total in the step's own unit (samples, layers, bytes).
using Progress = std::function<void(std::string_view step, int64_t done, int64_t total)>;

struct Context {
  const Model* teacher = nullptr;        // the original model, never modified
  const Dataset* calibration = nullptr;  // null: no data given
  Splits splits;                         // of calibration
  int threads = 1;
  uint64_t seed = 0;
  Emit emit = Emit::kCustom;
  bool measure = true;                        // false: no timing-dependent choice
  std::filesystem::path operator_library;     // libsparsefuse_ops.so
  std::vector<std::string> exclude_nodes;     // regular expressions on node names
  std::vector<std::string> exclude_op_types;  // operator types left alone
  Progress progress = [](std::string_view, int64_t, int64_t) {};

  // Whatever depended on timing, by pass name: read first (a run given decisions measures nothing),
  // written when made. Ends up in resolved_config.json.
  nlohmann::json decisions = nlohmann::json::object();

  // True when the user excluded this node.
  bool Excluded(const Node& node) const;
};

}  // namespace sparsefuse

#endif  // SPARSEFUSE_PASSES_FRAMEWORK_CONTEXT_H_

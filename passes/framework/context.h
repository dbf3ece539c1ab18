// What a pass may read besides the model: borrowed, built once per run by the command.

#ifndef SPARSEFUSE_PASSES_FRAMEWORK_CONTEXT_H_
#define SPARSEFUSE_PASSES_FRAMEWORK_CONTEXT_H_

#include <cstdint>
#include <filesystem>
#include <functional>
#include <initializer_list>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "onnx_io/model.h"
#include "passes/data/dataset.h"

namespace sparsefuse {

enum class Emit {
  kCustom,
  kStandard
};  // our operators with function bodies, or standard ones only

// Called by long steps: done and total in the step's own unit (samples, layers, bytes).
using Progress = std::function<void(std::string_view step, int64_t done, int64_t total)>;

// Regular expressions (POSIX extended) on whole node names: "/head/.*" matches "/head/MatMul".
// Matching takes time linear in the name, whatever the expression.
class NodePatterns {
 public:
  NodePatterns() = default;
  // UserError E_CONFIG that names the expression which is none, is over 1,000 characters, or uses
  // what POSIX lacks (\d, back-references).
  NodePatterns(const std::vector<std::string>& expressions);
  NodePatterns(std::initializer_list<std::string> expressions)
      : NodePatterns(std::vector<std::string>(expressions)) {}

  bool Match(const std::string& name) const;  // any of them
  const std::vector<std::string>& expressions() const { return expressions_; }

 private:
  struct Compiled;
  std::vector<std::string> expressions_;
  std::vector<std::shared_ptr<const Compiled>> compiled_;
};

struct Context {
  const Model* teacher = nullptr;        // the original model, never modified
  const Dataset* calibration = nullptr;  // null: no data given
  Splits splits;                         // of calibration
  int threads = 1;
  uint64_t seed = 0;
  Emit emit = Emit::kCustom;
  bool measure = true;                     // false: no timing-dependent choice
  std::filesystem::path operator_library;  // libsparsefuse_ops.so
  std::filesystem::path cache_folder;      // where measured times are remembered; empty: nowhere
  NodePatterns exclude_nodes;
  std::vector<std::string> exclude_op_types;  // operator types left alone
  Progress progress = [](std::string_view, int64_t, int64_t) {};

  // Whatever depended on timing, by pass name: read first (a run given decisions measures nothing),
  // written when made. Ends up in resolved_config.json.
  nlohmann::json decisions = nlohmann::json::object();

  // What the pass sensitivity found, for sensitivity.json; null: it did not run.
  nlohmann::json sensitivity;

  // True when the user excluded this node.
  bool Excluded(const Node& node) const;
};

// Exclusions that match no node of the teacher, functions and subgraphs included: probably a slip,
// to be warned about. Each as `nodes_to_exclude "…"` or `op_types_to_exclude "…"`.
std::vector<std::string> IdleExclusions(const Context& context);

}  // namespace sparsefuse

#endif  // SPARSEFUSE_PASSES_FRAMEWORK_CONTEXT_H_

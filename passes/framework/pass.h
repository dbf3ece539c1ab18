// The pass interface. One instance, one run. The runner alone times, measures memory, verifies,
// dumps and adds error context.

#ifndef SPARSEFUSE_PASSES_FRAMEWORK_PASS_H_
#define SPARSEFUSE_PASSES_FRAMEWORK_PASS_H_

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "onnx_io/model.h"
#include "passes/framework/context.h"
#include "passes/framework/params.h"

namespace sparsefuse {

// One thing done or not done to one node or tensor.
struct Finding {
  std::string subject;  // node or tensor name
  std::string op;       // operator type, may be empty
  std::string action;   // done: "int8 linear 128→384 (custom)"; empty when skipped
  std::string reason;   // skipped: why not
  double error = -1;    // relative error of what was done; < 0: not measured
};

struct PassStats {
  bool changed = false;  // checked by the runner: false means the model is byte for byte the same
  int64_t nodes_added = 0, nodes_removed = 0, tensors_rewritten = 0;
  std::vector<Finding> findings;

  void Done(const Node& node, std::string action, double error = -1);
  void Skip(const Node& node, std::string reason);
};

class Pass {
 public:
  virtual ~Pass() = default;
  // Preconditions; throws UserError that names the node.
  virtual void Check(const Model&, const Context&) const {}
  virtual PassStats Run(Model& student, Context& context) = 0;
};

// How far a pass may change outputs; the runner's verification uses it.
enum class Exactness {
  kLossless,  // within 1e-4 of the largest output
  kLossy,     // mean cosine ≥ 0.95 against the teacher
};

struct PassInfo {
  std::string_view name;     // kebab-case: config key, docs file, test folder
  std::string_view summary;  // one line
  Exactness exactness;
  ParamSpec params;
  std::unique_ptr<Pass> (*make)(const Params&);
};

// The one table, in registry.cpp.
const std::vector<const PassInfo*>& AllPasses();
const PassInfo* FindPass(std::string_view name);  // null if unknown

}  // namespace sparsefuse

#endif  // SPARSEFUSE_PASSES_FRAMEWORK_PASS_H_

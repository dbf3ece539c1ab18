// Raises the default domain's operator set to `target`, and the IR version with it: 8-bit weights
// with a scale per channel need version 13, the function bodies of our operators 18. Exact: each
// node is rewritten to mean the same (opset_rules). All or nothing: one node without a rule leaves
// the whole model as it is.

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>
#include <utility>
#include <variant>
#include <vector>

#include "passes/cleanup/edits.h"
#include "passes/cleanup/known_types.h"
#include "passes/cleanup/opset_table.h"
#include "passes/cleanup/passes.h"
#include "passes/lower/builder.h"

namespace sparsefuse {
namespace {

// A graph with the version that its nodes are written for: the model's, or its function's.
struct Scope {
  Graph* graph;
  int64_t opset;
  Builder::Constants constants;
};

std::vector<Scope> Scopes(Model& model) {
  std::map<const Graph*, int64_t> bodies;
  for (const auto& function : model.functions()) {
    const auto import = function->opset_imports.find("");
    bodies[function->body.get()] = import == function->opset_imports.end() ? 0 : import->second;
  }
  std::vector<Scope> scopes;
  ForEachGraph(model, [&](Graph& graph) {
    const Graph* root = &graph;
    while (root->parent()) root = root->parent()->graph();
    const auto body = bodies.find(root);
    if (body == bodies.end()) {
      scopes.push_back({&graph, model.opset(), Builder::Constants::kInitializers});
    } else {
      scopes.push_back({&graph, body->second, Builder::Constants::kNodes});
    }
  });
  return scopes;
}

bool HasReferences(const Node& node) {
  return std::any_of(node.attributes().begin(), node.attributes().end(), [](const Attribute& a) {
    return std::holds_alternative<AttributeRef>(a.data);
  });
}

class RaiseOpset final : public Pass {
 public:
  explicit RaiseOpset(int64_t target) : target_(target) {}

  PassStats Run(Model& model, Context&) override {
    PassStats stats;
    const int64_t before = model.opset();
    if (before >= target_) return stats;
    if (before == 0) {
      SkipModel(stats, "the default domain's operators are not imported");
      return stats;
    }
    Model raised = model.Clone();
    KnownTypes types(model);
    std::map<std::string, int64_t> rewritten;  // by operator
    for (const Scope& scope : Scopes(raised)) Rewrite(scope, types, rewritten, stats);
    if (!stats.findings.empty()) return stats;

    for (const auto& [op, count] : rewritten) {
      stats.findings.push_back(Counted(count, op, fmt::format("rewritten for opset {}", target_)));
    }
    RaiseImports(raised, stats);
    model = std::move(raised);
    stats.changed = true;
    stats.findings.push_back(
        {.subject = "model", .action = fmt::format("opset {} → {}", before, target_)});
    return stats;
  }

 private:
  static void SkipModel(PassStats& stats, std::string reason) {
    stats.findings.push_back({.subject = "model", .reason = std::move(reason)});
  }

  // Reports one node for each operator and reason that stands in the way.
  void Rewrite(const Scope& scope, KnownTypes& types, std::map<std::string, int64_t>& rewritten,
               PassStats& stats) {
    Builder shared(*scope.graph, scope.constants);
    for (Node* node : scope.graph->Nodes()) {
      if (!node->domain().empty() || scope.opset >= target_) continue;
      // In a function body constants are nodes: shared ones might come after their users.
      Builder own(*scope.graph, scope.constants);
      Builder& builder = scope.constants == Builder::Constants::kNodes ? own : shared;
      builder.InsertBefore(node);
      const std::string op = node->op();
      const std::string reason = RewriteNode(*node, scope.opset, {builder, types}, rewritten);
      if (reason.empty() || !reported_.emplace(op, reason).second) continue;
      stats.Skip(*node, fmt::format("the model stays at opset {}: {}", scope.opset, reason));
    }
  }

  std::string RewriteNode(Node& node, int64_t opset, const RuleContext& context,
                          std::map<std::string, int64_t>& rewritten) const {
    if (opset < kOldestOpset) {
      return fmt::format("only models from opset {} on can be raised", kOldestOpset);
    }
    if (!IsInOpsetTable(node.op())) {
      return fmt::format("no rule for operator \"{}\"", Printable(node.op()));
    }
    const std::string op = node.op();
    const std::vector<OpsetStep> steps = OpsetSteps(op, opset, target_);
    if (steps.empty()) return {};
    if (HasReferences(node)) return "it takes an attribute from its function's attributes";
    bool changed = false;
    for (const OpsetStep& step : steps) {
      RuleResult result = step.rule(node, context);
      if (result.outcome == RuleResult::kRefused) return std::move(result.reason);
      changed = changed || result.outcome == RuleResult::kRewritten;
    }
    if (changed) ++rewritten[op];
    return {};
  }

  void RaiseImports(Model& model, PassStats& stats) const {
    model.opset_imports[""] = target_;
    for (const auto& function : model.functions()) {
      const auto import = function->opset_imports.find("");
      if (import != function->opset_imports.end()) {
        import->second = std::max(import->second, target_);
      }
    }
    const int64_t old_ir = model.ir_version;
    model.ir_version = std::max(old_ir, MinIrVersion(target_));
    if (old_ir >= 4) return;
    // Before IR version 4 every initializer had to be listed as an input, and was a constant.
    int64_t inputs = 0;
    const std::vector<Value*> listed = model.graph().inputs();
    for (Value* input : listed) {
      if (!input->is_initializer()) continue;
      model.graph().RemoveGraphInput(input);
      ++inputs;
    }
    if (inputs > 0) {
      stats.findings.push_back(
          {.subject = fmt::format("{} weight{}", inputs, inputs == 1 ? "" : "s"),
           .action = "no longer listed as graph inputs"});
    }
  }

  const int64_t target_;
  std::set<std::pair<std::string, std::string>> reported_;
};

}  // namespace

const PassInfo kRaiseOpset = {
    .name = "raise-opset",
    .summary = "raises the model's operator set, rewriting operators whose definition changed",
    .exactness = Exactness::kLossless,
    .params = {{.name = "target",
                .otherwise = int64_t{18},
                .summary = "version of the default operator set to reach",
                .min = 18,
                .max = static_cast<double>(kNewestOpset)}},
    .make = [](const Params& params) -> std::unique_ptr<Pass> {
      return std::make_unique<RaiseOpset>(params.Int("target"));
    }};

}  // namespace sparsefuse

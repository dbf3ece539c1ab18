// Takes fused operators apart into ONNX's own (decompose_rules), so that analysis, gradients and
// pruning see what is inside: an Attention becomes a product, a split, two products of activations
// and a softmax, in which the heads are an axis. Exact up to rounding. Whole nodes or nothing: a
// form without a rule stays, with the reason. Only in the main graph, which alone is analysed.

#include <fmt/format.h>

#include <memory>
#include <set>
#include <vector>

#include "passes/cleanup/decompose_rules.h"
#include "passes/cleanup/edits.h"
#include "passes/cleanup/passes.h"

namespace sparsefuse {
namespace {

class Decompose final : public Pass {
 public:
  PassStats Run(Model& model, Context& context) override {
    PassStats stats;
    KnownTypes types(model);
    const std::vector<Node*> plan = Plan(model, context, types, stats);
    if (plan.empty() || !CanAddInitializers(model, stats)) return stats;
    Builder builder(model.graph());
    for (Node* node : plan) {
      Emitter emitter(builder, *node, model.opset());
      stats.Done(*node, "");  // while its outputs name it
      FindDecomposeRule(*node)->emit(FusedNode(*node, types, model.opset()), emitter);
      Remove(*node, emitter.count(), stats);
    }
    return stats;
  }

 private:
  static std::vector<Node*> Plan(Model& model, const Context& context, KnownTypes& types,
                                 PassStats& stats) {
    std::vector<Node*> plan;
    ForEachGraph(model, [&](Graph& graph) {
      for (Node* node : graph.Nodes()) {
        std::optional<std::string> reason = WhyNotDecomposed(*node, types, model.opset());
        if (!reason) continue;
        if (&graph != &model.graph()) reason = "it lies outside the main graph";
        if (context.Excluded(*node)) reason = "excluded";
        if (reason->empty()) {
          plan.push_back(node);
        } else {
          stats.Skip(*node, *reason);
        }
      }
    });
    return plan;
  }

  static void Remove(Node& node, int64_t added, PassStats& stats) {
    const std::set<Value*> inputs(node.inputs().begin(), node.inputs().end());
    stats.findings.back().action =
        fmt::format("taken apart into {} node{}", added, added == 1 ? "" : "s");
    stats.nodes_added += added;
    ++stats.nodes_removed;
    node.graph()->RemoveNode(&node);
    for (Value* input : inputs) RemoveIfUnused(input);
  }
};

}  // namespace

const PassInfo kDecompose = {
    .name = "decompose",
    .summary = "takes fused operators apart, so that pruning sees the heads and layers inside",
    .exactness = Exactness::kLossless,
    .params = {},
    .make = [](const Params&) -> std::unique_ptr<Pass> { return std::make_unique<Decompose>(); }};

}  // namespace sparsefuse

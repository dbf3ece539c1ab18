#include "passes/cleanup/edits.h"

#include <fmt/format.h>

#include <string>
#include <utility>

namespace sparsefuse {

bool CanAddInitializers(const Model& model, PassStats& stats) {
  if (model.ir_version >= 4) return true;
  stats.findings.push_back(
      {.subject = "model",
       .reason = fmt::format("IR version {} has its weights among the graph inputs: "
                             "run raise-opset first",
                             model.ir_version)});
  return false;
}

bool InFunction(const Graph& graph) {
  const Graph* root = &graph;
  while (root->parent()) root = root->parent()->graph();
  return root != &root->model()->graph();
}

void RemoveIfUnused(Value* value) {
  if (!value || !value->constant() || !value->uses().empty() || value->is_graph_output()) return;
  if (Node* constant = value->producer()) {
    value->graph()->RemoveNode(constant);
  } else if (!value->is_graph_input()) {
    value->graph()->RemoveInitializer(value);
  }
}

void ReplaceConstant(Node& node, size_t index, std::string_view role, Tensor tensor) {
  Graph& graph = *node.graph();
  Value* old = node.input(index);
  if (old && old->constant() && old->is_initializer() && old->has_single_use() &&
      old->constant()->dims() == tensor.dims()) {
    old->set_initializer(std::move(tensor));
    return;
  }
  std::string name = old ? old->name() : node.output(0)->name() + "_" + std::string(role);
  while (node.inputs().size() <= index) graph.AddInput(&node, nullptr);
  graph.SetInput(&node, index, graph.AddInitializer(graph.FreshName(name), std::move(tensor)));
  RemoveIfUnused(old);
}

Finding Counted(int64_t count, const std::string& op, std::string action) {
  return {.subject = fmt::format("{} {}", count, op), .op = op, .action = std::move(action)};
}

}  // namespace sparsefuse

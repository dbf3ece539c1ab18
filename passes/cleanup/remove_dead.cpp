// Removes what cannot influence any output: nodes and initializers that nothing uses, functions
// that no node calls; and nodes that hand their input on unchanged: Identity, Dropout outside
// training, Cast to the type that the input has, Clip and Relu whose input already lies in their
// range. Exact.

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include "passes/cleanup/edits.h"
#include "passes/cleanup/passes.h"

namespace sparsefuse {
namespace {

bool IsUnused(const Value* value) {
  return !value || (value->uses().empty() && !value->is_graph_output());
}

// --- Nodes that do nothing
// ------------------------------------------------------------------------

// The attribute where it is there and known: in a function's body it may come from the caller.
template <typename T>
std::optional<T> Known(const Node& node, std::string_view name) {
  const Attribute* attribute = node.attribute(name);
  const T* value = attribute ? std::get_if<T>(&attribute->data) : nullptr;
  return value ? std::optional<T>(*value) : std::nullopt;
}

// The element type where it needs no inference.
DType KnownType(const Value& value) {
  if (const Tensor* tensor = value.initializer()) return tensor->dtype();
  const Node* producer = value.producer();
  if (!producer) return value.type() ? value.type()->dtype : DType::kUndefined;
  if (const Tensor* tensor = value.constant()) return tensor->dtype();
  if (producer->Is("Cast")) return static_cast<DType>(Known<int64_t>(*producer, "to").value_or(0));
  if (producer->Is("Shape") || producer->Is("Size")) return DType::kInt64;
  return DType::kUndefined;
}

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kUnknown = std::numeric_limits<double>::quiet_NaN();

struct Interval {
  double low = -kInfinity, high = kInfinity;
};

// A bound of Clip: an attribute before version 11 (then the default is finite), an input from it
// on.
double Bound(const Node& clip, int64_t opset, size_t index, const char* attribute,
             double infinity) {
  if (opset < 11) {
    if (clip.attribute(attribute)) return Known<float>(clip, attribute).value_or(kUnknown);
    return std::copysign(std::numeric_limits<float>::max(), infinity);
  }
  if (!clip.input(index)) return infinity;
  const Tensor* constant = clip.constant_input(index);
  if (!constant || constant->dtype() != DType::kFloat || constant->size() != 1) return kUnknown;
  return constant->ToFloats().front();
}

// The values that the operator can put out.
Interval RangeOf(const Node& node, int64_t opset) {
  if (node.Is("Relu") || node.Is("Abs")) return {0, kInfinity};
  if (node.Is("Sigmoid") || node.Is("HardSigmoid") || node.Is("Softmax")) return {0, 1};
  if (node.Is("Clip")) {
    return {Bound(node, opset, 1, "min", -kInfinity), Bound(node, opset, 2, "max", kInfinity)};
  }
  return {};
}

bool IsNoOpClip(const Node& node, int64_t opset) {
  const Value* input = node.input(0);
  if (!input) return false;
  const Interval has = input->producer() ? RangeOf(*input->producer(), opset) : Interval{};
  const Interval allows = RangeOf(node, opset);
  return has.low >= allows.low && has.high <= allows.high;  // false where a bound is unknown
}

// Why Dropout may go, empty if it may not. Before version 7 it had an attribute for training, from
// 12 on it has an input. A model exported in training mode by mistake is one that ONNX Runtime
// would run at random, did its optimiser not take such nodes out too, unless they are graph
// outputs.
std::string WhyNoOpDropout(const Node& node, int64_t opset) {
  const char* const kNothing = "does nothing outside training";
  if (!IsUnused(node.output(1))) return {};
  if (opset < 7) return Known<int64_t>(node, "is_test").value_or(0) ? kNothing : "";
  if (!node.input(2)) return kNothing;
  const Tensor* training = node.constant_input(2);
  if (!training || training->size() != 1) return {};
  if (training->ToInts().front() == 0) return kNothing;
  return node.output(0) && !node.output(0)->is_graph_output()
             ? "set to training, which ONNX Runtime leaves out too"
             : "";
}

// Why the node changes nothing, empty if it may.
std::string WhyNoOp(const Node& node, int64_t opset) {
  if (node.Is("Identity")) return "does nothing";
  if (node.Is("Dropout")) return WhyNoOpDropout(node, opset);
  if (node.Is("Cast") && node.input(0)) {
    const DType from = KnownType(*node.input(0));
    if (from != DType::kUndefined &&
        from == static_cast<DType>(Known<int64_t>(node, "to").value_or(0))) {
      return "casts to the type that its input has";
    }
  }
  if ((node.Is("Clip") || node.Is("Relu")) && IsNoOpClip(node, opset)) return "changes no value";
  return {};
}

// Takes the node out, its input in place of its output. False if it must stay: it stands between a
// graph output and something that is no result of a node of the graph, or is an output itself.
bool Bypass(Node* node) {
  Graph& graph = *node->graph();
  Value* input = node->input(0);
  Value* output = node->output(0);
  if (!input || !output) return false;
  if (output->is_graph_output()) {
    Node* producer = input->producer();
    if (!producer || input->graph() != &graph || input->is_graph_output()) return false;
    const auto index = static_cast<size_t>(input->producer_index());
    graph.SetInput(node, 0, nullptr);
    graph.ReplaceUses(input, output);
    graph.MoveOutput(output, producer, index);
  } else {
    input->graph()->ReplaceUses(output, input);
  }
  graph.RemoveNode(node);
  return true;
}

// --- The pass
// -------------------------------------------------------------------------------------

using Counts = std::map<std::pair<std::string, std::string>, int64_t>;  // (operator, why)

int64_t OpsetOf(const Model& model, const Graph& graph) {
  const Graph* root = &graph;
  while (root->parent()) root = root->parent()->graph();
  for (const auto& function : model.functions()) {
    if (function->body.get() != root) continue;
    const auto import = function->opset_imports.find("");
    return import == function->opset_imports.end() ? 0 : import->second;
  }
  return model.opset();
}

void BypassNoOps(Model& model, const Context& context, Counts& counts) {
  ForEachGraph(model, [&](Graph& graph) {
    const int64_t opset = OpsetOf(model, graph);
    for (Node* node : graph.TopologicalOrder()) {
      std::string op = node->op();
      std::string why = WhyNoOp(*node, opset);
      if (why.empty() || context.Excluded(*node)) continue;
      if (Bypass(node)) ++counts[{std::move(op), std::move(why)}];
    }
  });
}

// Users before producers, so that one walk finds whole chains within a graph, and inner graphs
// first, because a node takes the graphs inside it along; what only those used goes with the next
// walk.
bool RemoveNodes(Model& model, const Context& context, Counts& counts) {
  bool removed = false;
  std::vector<Graph*> graphs;
  ForEachGraph(model, [&](Graph& graph) { graphs.push_back(&graph); });
  for (auto graph = graphs.rbegin(); graph != graphs.rend(); ++graph) {
    std::vector<Node*> order = (*graph)->TopologicalOrder();
    for (auto node = order.rbegin(); node != order.rend(); ++node) {
      const std::vector<Value*>& outputs = (*node)->outputs();
      if (!std::all_of(outputs.begin(), outputs.end(), IsUnused)) continue;
      if (context.Excluded(**node)) continue;
      ++counts[{(*node)->op(), "its result is not used"}];
      (*graph)->RemoveNode(*node);
      removed = true;
    }
  }
  return removed;
}

void RemoveInitializers(Model& model, PassStats& stats) {
  ForEachGraph(model, [&](Graph& graph) {
    for (Value* value : graph.Initializers()) {
      if (!IsUnused(value) || value->is_graph_input() || !value->initializer()) continue;
      stats.changed = true;
      stats.findings.push_back(
          {.subject = value->name(),
           .action = fmt::format("unused, {} bytes", value->initializer()->bytes().size())});
      graph.RemoveInitializer(value);
    }
  });
}

using FunctionKey = std::tuple<std::string, std::string, std::string>;  // domain, name, overload

void AddCalls(const Graph& root, std::set<FunctionKey>& calls) {
  std::vector<const Graph*> stack = {&root};
  while (!stack.empty()) {
    const Graph* graph = stack.back();
    stack.pop_back();
    for (const Node* node : graph->Nodes()) {
      calls.emplace(node->domain(), node->op(), node->overload());
      for (const Attribute& attribute : node->attributes()) {
        if (const auto* inner = std::get_if<std::unique_ptr<Graph>>(&attribute.data)) {
          stack.push_back(inner->get());
        } else if (const auto* list =
                       std::get_if<std::vector<std::unique_ptr<Graph>>>(&attribute.data)) {
          for (const auto& each : *list) stack.push_back(each.get());
        }
      }
    }
  }
}

void RemoveFunctions(Model& model, PassStats& stats) {
  std::set<FunctionKey> calls;
  AddCalls(model.graph(), calls);
  std::set<const Function*> reached;
  for (bool again = true; again;) {
    again = false;
    for (const auto& function : model.functions()) {
      if (!calls.count({function->domain, function->name, function->overload})) continue;
      if (!reached.insert(function.get()).second) continue;
      AddCalls(*function->body, calls);
      again = true;
    }
  }
  std::erase_if(model.functions(), [&](const std::unique_ptr<Function>& function) {
    if (reached.count(function.get())) return false;
    stats.changed = true;
    stats.findings.push_back({.subject = function->name, .action = "function, not called"});
    return true;
  });
}

class RemoveDead final : public Pass {
 public:
  PassStats Run(Model& model, Context& context) override {
    PassStats stats;
    RemoveFunctions(model, stats);
    Counts counts;
    BypassNoOps(model, context, counts);
    while (RemoveNodes(model, context, counts)) {
    }
    for (const auto& [what, count] : counts) {
      stats.changed = true;
      stats.nodes_removed += count;
      stats.findings.push_back(Counted(count, what.first, "removed: " + what.second));
    }
    RemoveInitializers(model, stats);
    return stats;
  }
};

}  // namespace

const PassInfo kRemoveDead = {
    .name = "remove-dead",
    .summary = "removes nodes, weights and functions without influence on any output",
    .exactness = Exactness::kLossless,
    .params = {},
    .make = [](const Params&) -> std::unique_ptr<Pass> { return std::make_unique<RemoveDead>(); }};

}  // namespace sparsefuse

#include <algorithm>
#include <map>
#include <string>
#include <tuple>
#include <vector>

#include "onnx_io/model.h"

namespace sparsefuse {
namespace {

// Larger than any real model by one or two orders of magnitude, small enough to walk in seconds.
constexpr uint64_t kMaxNodes = 2'000'000;
constexpr uint64_t kMaxInitializers = 1'000'000;
constexpr uint64_t kMaxFunctions = 10'000;
constexpr uint64_t kMaxCallDepth = 100;
constexpr uint64_t kMaxInlinedNodes = 5'000'000;  // main graph with all function calls expanded

void CheckLimit(uint64_t count, uint64_t limit, std::string_view what) {
  if (count <= limit) return;
  throw UserError(ErrorCode::kLimit, fmt::format("{} {}, the limit is {}", count, what, limit));
}

UserError NodeError(const Node& node, std::string what) {
  return UserError(ErrorCode::kModel, std::move(what)).At(node.Describe());
}

// --- One graph
// --------------------------------------------------------------------------------------

bool InScope(const Value& value, const Graph& graph) {
  for (const Graph* at = &graph; at; at = at->parent() ? at->parent()->graph() : nullptr) {
    if (value.graph() == at) return true;
  }
  return false;
}

void CheckNode(const Node& node, const Graph& graph, bool in_function) {
  SF_CHECK(node.graph() == &graph);
  if (node.op().empty()) throw NodeError(node, "has no operator type");
  const auto& outputs = node.outputs();
  if (std::none_of(outputs.begin(), outputs.end(), [](const Value* v) { return v != nullptr; })) {
    throw NodeError(node, "has no output");
  }
  for (size_t i = 0; i < outputs.size(); ++i) {
    const Value* output = outputs[i];
    SF_CHECK(!output || (output->graph() == &graph && output->producer() == &node &&
                         output->producer_index() == static_cast<int>(i)),
             "{} output {}", node.Describe(), i);
  }
  for (size_t i = 0; i < node.inputs().size(); ++i) {
    const Value* input = node.inputs()[i];
    if (input && !InScope(*input, graph)) {
      throw NodeError(node, fmt::format("input {} \"{}\" belongs to another graph", i,
                                        Printable(input->name())));
    }
  }
  for (const Attribute& attribute : node.attributes()) {
    if (std::holds_alternative<AttributeRef>(attribute.data) && !in_function) {
      throw NodeError(node, fmt::format("attribute \"{}\" refers to a function's attribute, but is "
                                        "in no function",
                                        Printable(attribute.name)));
    }
  }
}

void CheckValue(const Value& value, const Graph& graph) {
  SF_CHECK(value.graph() == &graph, "\"{}\"", value.name());
  const int sources =
      (value.producer() ? 1 : 0) +
      (value.is_initializer() || value.is_sparse_initializer() || value.is_graph_input() ? 1 : 0);
  SF_CHECK(sources == 1, "\"{}\" has {} sources", value.name(), sources);
  for (const Use& use : value.uses()) {
    SF_CHECK(use.node->input(static_cast<size_t>(use.index)) == &value, "a use of \"{}\"",
             value.name());
  }
}

int Depth(const Graph& graph) {
  int depth = 0;
  for (const Node* holder = graph.parent(); holder; holder = holder->graph()->parent()) ++depth;
  return depth;
}

void CheckGraph(const Graph& graph, bool in_function) {
  CheckLimit(static_cast<uint64_t>(Depth(graph)), kMaxSubgraphDepth, "nested subgraphs");
  for (const Node* node : graph.TopologicalOrder()) {
    CheckNode(*node, graph, in_function);
    for (const Value* output : node->outputs()) {
      if (output) CheckValue(*output, graph);
    }
  }
  for (const Value* value : graph.inputs()) CheckValue(*value, graph);
  for (const Value* value : graph.Initializers()) CheckValue(*value, graph);
  for (const Value* value : graph.outputs()) {
    SF_CHECK(value->graph() == &graph && value->is_graph_output(), "\"{}\"", value->name());
  }
}

// --- Functions
// --------------------------------------------------------------------------------------

// The main graph or a function's body, with all subgraphs.
struct Body {
  std::string name;
  uint64_t nodes = 0;
  uint64_t initializers = 0;
  std::map<size_t, uint64_t> calls;  // which body → how often
  uint64_t inlined_nodes = 0;        // nodes with all calls expanded, capped
  uint64_t call_depth = 0;           // calls inside calls, at most
};

using Key = std::tuple<std::string, std::string, std::string>;  // domain, name, overload

Body Survey(const Graph& root, std::string name, bool is_function,
            const std::map<Key, size_t>& numbers) {
  Body body;
  body.name = std::move(name);
  ForEachGraph(root, [&](const Graph& graph) {
    CheckGraph(graph, is_function);
    body.nodes += graph.node_count();
    body.initializers += graph.Initializers().size();
    for (const Node* node : graph.Nodes()) {
      const auto callee = numbers.find(Key(node->domain(), node->op(), node->overload()));
      if (callee != numbers.end()) ++body.calls[callee->second];
    }
  });
  return body;
}

// Fills in inlined_nodes and call_depth, callees first. E_MODEL on recursion.
void ExpandCalls(std::vector<Body>& bodies) {
  enum class State { kNew, kOpen, kDone };
  std::vector<State> states(bodies.size(), State::kNew);
  std::vector<size_t> stack;
  for (size_t root = 0; root < bodies.size(); ++root) {
    stack.push_back(root);
    while (!stack.empty()) {
      const size_t at = stack.back();
      Body& body = bodies[at];
      if (states[at] == State::kNew) {
        states[at] = State::kOpen;
        for (const auto& [callee, count] : body.calls) {
          if (states[callee] == State::kOpen) {
            throw UserError(ErrorCode::kModel, "calls itself, directly or through others")
                .At(bodies[callee].name);
          }
          if (states[callee] == State::kNew) stack.push_back(callee);
        }
        continue;
      }
      stack.pop_back();
      if (states[at] == State::kDone) continue;
      states[at] = State::kDone;
      body.inlined_nodes = body.nodes;
      for (const auto& [callee, count] : body.calls) {
        uint64_t added = 0;
        const bool huge = __builtin_mul_overflow(count, bodies[callee].inlined_nodes, &added) ||
                          __builtin_add_overflow(body.inlined_nodes, added, &body.inlined_nodes);
        if (huge) body.inlined_nodes = UINT64_MAX;
        body.call_depth = std::max(body.call_depth, bodies[callee].call_depth + 1);
      }
    }
  }
}

}  // namespace

void Verify(const Model& model) {
  CheckLimit(model.functions().size(), kMaxFunctions, "functions");
  std::map<Key, size_t> numbers;  // in `bodies`; 0 is the main graph
  for (const auto& function : model.functions()) {
    const bool added =
        numbers
            .emplace(Key(function->domain, function->name, function->overload), numbers.size() + 1)
            .second;
    SF_CHECK(added, "function {}.{} exists twice", function->domain, function->name);
  }
  std::vector<Body> bodies;
  bodies.push_back(Survey(model.graph(), "the graph", false, numbers));
  for (const auto& function : model.functions()) {
    const std::string name =
        fmt::format("function \"{}.{}\"", Printable(function->domain), Printable(function->name));
    try {
      bodies.push_back(Survey(*function->body, name, true, numbers));
    } catch (UserError& error) {
      error.where = error.where.empty() ? name : name + ": " + error.where;
      throw;
    }
  }
  uint64_t nodes = 0, initializers = 0;
  for (const Body& body : bodies) {
    nodes += body.nodes;
    initializers += body.initializers;
  }
  CheckLimit(nodes, kMaxNodes, "nodes");
  CheckLimit(initializers, kMaxInitializers, "initializers");
  ExpandCalls(bodies);
  CheckLimit(bodies[0].call_depth, kMaxCallDepth, "nested function calls");
  CheckLimit(bodies[0].inlined_nodes, kMaxInlinedNodes, "nodes with all function calls expanded");
}

}  // namespace sparsefuse

#include "passes/statistics/cuts.h"

#include <fmt/format.h>

#include <algorithm>
#include <unordered_map>
#include <unordered_set>

#include "passes/cleanup/known_types.h"

namespace sparsefuse {
namespace {

using Values = std::unordered_set<const Value*>;

// Calls visit(node of the main graph, input index) for each use; a use in a subgraph is one by the
// node that holds it, of no input of its own (SIZE_MAX).
template <typename Visit>
void ForEachUser(const Value* value, const Visit& visit) {
  for (const Use& use : value->uses()) {
    const Node* node = use.node;
    auto index = static_cast<size_t>(use.index);
    while (node->graph() != value->graph()) {
      node = node->graph()->parent();
      index = SIZE_MAX;
    }
    visit(*node, index);
  }
}

// The values of the main graph by how they follow from the inputs.
class Flow {
 public:
  explicit Flow(const Model& model) : graph_(model.graph()), order_(graph_.TopologicalOrder()) {
    FindReads();
    FindWeights();
    FindDynamic();
    FindProducts();
    FindTrunk();
  }

  const std::vector<Node*>& order() const { return order_; }
  const std::vector<const Value*>& reads(const Node* node) const { return reads_.at(node); }
  bool IsProduct(const Node* node) const { return products_.count(node) > 0; }
  bool InTrunk(const Value* value) const { return trunk_.count(value) > 0; }

 private:
  // What each node reads, by subgraphs too.
  void FindReads() {
    for (const Node* node : order_) reads_[node];
    const auto add = [&](const Value* value) {
      ForEachUser(value, [&](const Node& node, size_t) { reads_[&node].push_back(value); });
    };
    for (const Value* input : graph_.inputs()) add(input);
    for (const Value* weight : graph_.Initializers()) {
      if (!weight->is_graph_input()) add(weight);
    }
    for (const Node* node : order_) {
      for (const Value* output : node->outputs()) {
        if (output) add(output);
      }
    }
  }

  // Visits the outputs of each node for which `belongs(node)` holds, producers first.
  template <typename Belongs>
  void Spread(Values& values, const Belongs& belongs) {
    for (const Node* node : order_) {
      if (belongs(node)) values.insert(node->outputs().begin(), node->outputs().end());
    }
    values.erase(nullptr);
  }

  bool ReadsAny(const Node* node, const Values& values) const {
    const std::vector<const Value*>& reads = reads_.at(node);
    return std::any_of(reads.begin(), reads.end(),
                       [&](const Value* value) { return values.count(value) > 0; });
  }

  // Constants, and what is computed from constants alone.
  void FindWeights() {
    for (const Value* value : graph_.Initializers()) {
      if (!value->is_graph_input()) weights_.insert(value);
    }
    Spread(weights_, [&](const Node* node) {
      const std::vector<const Value*>& reads = reads_.at(node);
      return std::all_of(reads.begin(), reads.end(),
                         [&](const Value* value) { return weights_.count(value) > 0; });
    });
  }

  // What depends on the elements of the inputs, not on their shapes alone.
  void FindDynamic() {
    for (const Value* input : graph_.inputs()) {
      if (!input->initializer()) dynamic_.insert(input);
    }
    Spread(dynamic_, [&](const Node* node) {
      return !node->Is("Shape") && !node->Is("Size") && ReadsAny(node, dynamic_);
    });
  }

  // Whether input `i` of `node` is a matrix of weights that input `other` is multiplied by. The
  // frequencies of rotary positions are none: a column times a row of positions.
  bool MultipliesWeights(const Node& node, size_t i) const {
    const Value* weight = node.input(i);
    if (!weight || !weights_.count(weight)) return false;
    const Tensor* tensor = weight->constant();
    if (!tensor || !node.Is("MatMul")) return true;
    const Dims& dims = tensor->dims();
    if (dims.size() < 2) return tensor->size() > 1;
    return dims[dims.size() - (i == 0 ? 1 : 2)] > 1;
  }

  bool IsProductNode(const Node& node) const {
    if (!ReadsAny(&node, dynamic_)) return false;
    if (node.Is("MatMul") || node.Is("Gemm")) {
      return MultipliesWeights(node, 0) || MultipliesWeights(node, 1);
    }
    if (node.domain().empty()) {
      // Operators with weights that nothing is known about below are taken for products.
      static const std::unordered_set<std::string> products = {
          "Conv",        "ConvTranspose", "Einsum", "LSTM",       "GRU",         "RNN",
          "If",          "Loop",          "Scan",   "DeformConv", "ConvInteger", "MatMulInteger",
          "QLinearConv", "QLinearMatMul"};
      if (!products.count(node.op())) return false;
    }
    return ReadsAny(&node, weights_);
  }

  void FindProducts() {
    for (const Node* node : order_) {
      if (IsProductNode(*node)) products_.insert(node);
    }
  }

  // All that a product went into, and what products are computed from.
  void FindTrunk() {
    Spread(trunk_, [&](const Node* node) { return IsProduct(node) || ReadsAny(node, trunk_); });
    Values before;  // backwards: leads to a product without passing one
    for (size_t i = order_.size(); i-- > 0;) {
      const Node* node = order_[i];
      const bool leads =
          IsProduct(node) || std::any_of(node->outputs().begin(), node->outputs().end(),
                                         [&](const Value* v) { return before.count(v) > 0; });
      if (!leads) continue;
      for (const Value* value : reads_.at(node)) {
        if (dynamic_.count(value) && !trunk_.count(value)) before.insert(value);
      }
    }
    trunk_.insert(before.begin(), before.end());
    // Only what an output needs.
    Values needed(graph_.outputs().begin(), graph_.outputs().end());
    for (size_t i = order_.size(); i-- > 0;) {
      const auto& outputs = order_[i]->outputs();
      if (std::none_of(outputs.begin(), outputs.end(),
                       [&](const Value* value) { return needed.count(value) > 0; })) {
        continue;
      }
      for (const Value* value : reads_.at(order_[i])) needed.insert(value);
    }
    std::erase_if(trunk_, [&](const Value* value) { return !needed.count(value); });
  }

  const Graph& graph_;
  std::vector<Node*> order_;
  std::unordered_map<const Node*, std::vector<const Value*>> reads_;
  Values weights_, dynamic_, trunk_;
  std::unordered_set<const Node*> products_;
};

// Removes what no graph output needs, graph inputs included.
void RemoveUnneeded(Graph& graph) {
  const auto unused = [](const Value* value) {
    return !value || (value->uses().empty() && !value->is_graph_output());
  };
  const std::vector<Node*> order = graph.TopologicalOrder();
  for (size_t i = order.size(); i-- > 0;) {
    const std::vector<Value*>& outputs = order[i]->outputs();
    if (std::all_of(outputs.begin(), outputs.end(), unused)) graph.RemoveNode(order[i]);
  }
  for (Value* weight : graph.Initializers()) {
    if (unused(weight) && !weight->is_graph_input()) graph.RemoveInitializer(weight);
  }
  for (Value* input : std::vector<Value*>(graph.inputs())) {
    if (!unused(input)) continue;
    if (input->is_initializer()) graph.RemoveInitializer(input);
    graph.RemoveGraphInput(input);
  }
}

bool IsTyped(const std::optional<ValueType>& type) {
  return type && type->dtype != DType::kUndefined;
}

}  // namespace

std::vector<std::string> FindCuts(const Model& model) {
  const Flow flow(model);
  const Graph& graph = model.graph();
  std::unordered_map<const Value*, size_t> readers;  // in the trunk, not reached yet
  const auto is_trunk = [&](const Node* node) {
    return std::any_of(node->outputs().begin(), node->outputs().end(),
                       [&](const Value* value) { return flow.InTrunk(value); });
  };
  std::vector<const Node*> nodes;
  for (const Node* node : flow.order()) {
    if (!is_trunk(node)) continue;
    nodes.push_back(node);
    for (const Value* value : flow.reads(node)) ++readers[value];
  }
  // Graph outputs stay open to the end.
  for (const Value* output : graph.outputs()) ++readers[output];

  struct Cut {
    const Value* value;
    int64_t products;  // up to here
  };
  std::vector<Cut> cuts;
  Values open;
  for (const Value* input : graph.inputs()) {
    if (flow.InTrunk(input) && readers.count(input)) open.insert(input);
  }
  KnownTypes types(model);
  int64_t products = 0;
  for (const Node* node : nodes) {
    if (flow.IsProduct(node)) ++products;
    for (const Value* value : flow.reads(node)) {
      if (--readers[value] == 0) open.erase(value);
    }
    for (const Value* output : node->outputs()) {
      if (flow.InTrunk(output) && readers.count(output)) open.insert(output);
    }
    if (open.size() != 1) continue;
    const Value* value = *open.begin();
    if (value->is_graph_output() || value->is_graph_input()) continue;
    if (!IsTyped(types.type(*value))) continue;
    cuts.push_back({value, products});
  }
  std::vector<std::string> names;
  for (size_t i = 0; i < cuts.size(); ++i) {
    const bool last = i + 1 == cuts.size() || cuts[i + 1].products > cuts[i].products;
    const bool between = cuts[i].products > 0 && cuts[i].products < products;
    if (last && between) names.push_back(cuts[i].value->name());
  }
  return names;
}

Model LeadingTo(const Model& model, std::span<const std::string> values) {
  Model part = model.Clone();
  Graph& graph = part.graph();
  for (Value* output : std::vector<Value*>(graph.outputs())) {
    if (output->is_graph_output()) graph.RemoveGraphOutput(output);
  }
  for (const std::string& name : values) {
    Value* value = graph.FindValue(name);
    SF_CHECK(value, "no value \"{}\" in the main graph", name);
    if (!value->is_graph_output()) graph.AddGraphOutput(value);
  }
  RemoveUnneeded(graph);
  return part;
}

Model Segment(const Model& model, std::string_view from, std::string_view to) {
  std::vector<std::string> ends;
  for (const Value* output : model.graph().outputs()) ends.push_back(output->name());
  if (!to.empty()) ends = {std::string(to)};
  Model segment = LeadingTo(model, ends);
  if (from.empty()) return segment;
  Graph& graph = segment.graph();
  Value* cut = graph.FindValue(from);
  SF_CHECK(cut && cut->producer(), "\"{}\" is no computed value of the main graph", from);
  std::optional<ValueType> type = KnownTypes(model).type(*model.graph().FindValue(from));
  if (!IsTyped(type)) {
    throw UserError(ErrorCode::kUnsupported, "ONNX Runtime cannot infer its type")
        .At(fmt::format("tensor \"{}\"", Printable(from)));
  }
  SF_CHECK(!cut->is_graph_output());
  // The name is taken until its producer is gone.
  Value* place = graph.AddInitializer(graph.FreshName("cut"), Tensor::Scalar(0.0f));
  graph.ReplaceUses(cut, place);
  RemoveUnneeded(graph);
  SF_CHECK(!graph.FindValue(from), "\"{}\" is computed by a node with other outputs", from);
  graph.ReplaceUses(place, graph.AddGraphInput(std::string(from), std::move(type)));
  graph.RemoveInitializer(place);
  return segment;
}

}  // namespace sparsefuse

#include "passes/autodiff/gradients.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>
#include <unordered_map>
#include <unordered_set>

#include "passes/autodiff/rules.h"
#include "passes/autodiff/vjp.h"
#include "passes/cleanup/decompose_rules.h"

namespace sparsefuse {
namespace {

constexpr int64_t kMinOpset = 13;

// The node of the main graph that `node` is or lies in.
Node* Outermost(Node* node) {
  while (Node* parent = node->graph()->parent()) node = parent;
  return node;
}

class Sweep {
 public:
  explicit Sweep(Model& model)
      : model_(model), graph_(model.graph()), types_(model), vjp_(graph_, types_) {}

  Gradients Run(std::span<const std::string> tensors, std::span<const Seed> seeds);

 private:
  Value* FindFloat(const std::string& name);
  void MarkVarying();
  void Arrive(Value* value, Value* gradient) { arrived_[value].push_back(gradient); }
  Value* Gradient(Value* value);
  void Visit(Node* node);
  // The wanted tensors that change the `inputs` are cut by `node`.
  void Block(const Node& node, std::string reason, std::vector<Value*> inputs);
  void RemoveUnused(const std::unordered_set<Node*>& before, const std::set<Value*>& weights);

  Model& model_;
  Graph& graph_;
  KnownTypes types_;
  Vjp vjp_;
  std::vector<Node*> order_;
  std::vector<Value*> wanted_;
  std::unordered_set<Value*> varying_;  // wanted, or differentiable functions of a wanted one
  std::unordered_map<Node*, std::vector<Value*>> captured_;  // varying ones read by its subgraphs
  std::unordered_map<Value*, std::vector<Value*>> arrived_;
  std::unordered_set<Value*> cut_;
  std::vector<Barrier> barriers_;
};

Value* Sweep::FindFloat(const std::string& name) {
  Value* value = graph_.FindValue(name);
  if (!value) {
    throw UserError(ErrorCode::kModel,
                    fmt::format("the graph has no tensor \"{}\"", Printable(name)))
        .InFile(model_.source);
  }
  const DType type = types_.dtype(*value);
  if (type == DType::kUndefined) {
    throw UserError(ErrorCode::kUnsupported, "ONNX Runtime does not know its element type",
                    "does the model load?")
        .InFile(model_.source)
        .At(fmt::format("tensor \"{}\"", Printable(name)));
  }
  if (!IsFloating(type)) {
    throw UserError(
        ErrorCode::kModel,
        fmt::format("{} tensors have no gradient, only floating-point ones have", DTypeName(type)))
        .InFile(model_.source)
        .At(fmt::format("tensor \"{}\"", Printable(name)));
  }
  return value;
}

// Integers do not vary: they change in steps. Values of unknown type may.
void Sweep::MarkVarying() {
  const auto mark = [&](Value* value) {
    if (!varying_.insert(value).second) return;
    for (const Use& use : value->uses()) {
      if (use.node->graph() != &graph_) captured_[Outermost(use.node)].push_back(value);
    }
  };
  for (Value* value : wanted_) mark(value);
  for (Node* node : order_) {
    const bool varies =
        captured_.count(node) > 0 ||
        std::any_of(node->inputs().begin(), node->inputs().end(),
                    [&](Value* value) { return value && varying_.count(value) > 0; });
    if (!varies) continue;
    const GradientRule* rule = FindGradientRule(*node);
    if (rule && !rule->apply) continue;
    for (Value* output : node->outputs()) {
      if (!output) continue;
      const DType type = types_.dtype(*output);
      if (type == DType::kUndefined || IsFloating(type)) mark(output);
    }
  }
}

Value* Sweep::Gradient(Value* value) {
  const auto found = arrived_.find(value);
  if (found == arrived_.end()) return nullptr;
  std::vector<Value*>& parts = found->second;
  if (parts.size() > 1) parts = {vjp_.Op("Sum", parts)};
  return parts[0];
}

void Sweep::Block(const Node& node, std::string reason, std::vector<Value*> inputs) {
  const std::string op =
      node.domain().empty() ? node.op() : fmt::format("{}.{}", node.domain(), node.op());
  Barrier barrier{node.Describe(), op, std::move(reason), {}};
  std::unordered_set<Value*> above;
  while (!inputs.empty()) {
    Value* value = inputs.back();
    inputs.pop_back();
    if (!value || !varying_.count(value) || !above.insert(value).second) continue;
    Node* producer = value->producer();
    if (!producer) continue;
    inputs.insert(inputs.end(), producer->inputs().begin(), producer->inputs().end());
    const auto captured = captured_.find(producer);
    if (captured == captured_.end()) continue;
    inputs.insert(inputs.end(), captured->second.begin(), captured->second.end());
  }
  for (Value* value : wanted_) {
    if (above.count(value) == 0) continue;
    cut_.insert(value);
    barrier.tensors.push_back(value->name());
  }
  barriers_.push_back(std::move(barrier));
}

void Sweep::Visit(Node* node) {
  std::vector<Value*> arrived;
  for (Value* output : node->outputs()) arrived.push_back(output ? Gradient(output) : nullptr);
  if (std::all_of(arrived.begin(), arrived.end(), [](Value* g) { return !g; })) return;

  const std::vector<Value*> inputs = node->inputs();
  std::vector<bool> wanted;
  for (Value* input : inputs) wanted.push_back(input && varying_.count(input) > 0);
  std::vector<Value*> reasons = inputs;
  if (const auto captured = captured_.find(node); captured != captured_.end()) {
    reasons.insert(reasons.end(), captured->second.begin(), captured->second.end());
    return Block(*node, "gradients do not enter subgraphs", reasons);
  }
  if (std::find(wanted.begin(), wanted.end(), true) == wanted.end()) return;
  const GradientRule* rule = FindGradientRule(*node);
  if (!rule) {
    const std::optional<std::string> fused = DecomposeAdvice(*node, types_, model_.opset());
    return Block(*node, fused ? "it is fused: " + *fused : "no rule for this operator", reasons);
  }
  for (size_t i = 1; i < arrived.size() && !rule->all_outputs; ++i) {
    if (arrived[i]) {
      return Block(*node, fmt::format("no rule for its output {}", i), reasons);
    }
  }
  std::vector<Value*> given;
  try {
    given = vjp_.Apply(rule->apply, *node, std::move(arrived), wanted);
  } catch (const NoGradient& refusal) {
    return Block(*node, refusal.reason, reasons);
  }
  for (size_t i = 0; i < inputs.size(); ++i) {
    if (given[i]) Arrive(inputs[i], given[i]);
    if (wanted[i] && !given[i])
      Block(*node, fmt::format("no rule for its input {}", i), {inputs[i]});
  }
}

void Sweep::RemoveUnused(const std::unordered_set<Node*>& before, const std::set<Value*>& weights) {
  std::vector<Node*> nodes = graph_.Nodes();
  for (auto node = nodes.rbegin(); node != nodes.rend(); ++node) {
    if (before.count(*node) > 0) continue;
    const auto& outputs = (*node)->outputs();
    if (std::all_of(outputs.begin(), outputs.end(), [](const Value* output) {
          return !output || (output->uses().empty() && !output->is_graph_output());
        })) {
      graph_.RemoveNode(*node);
    }
  }
  for (Value* weight : graph_.Initializers()) {
    if (weights.count(weight) == 0 && weight->uses().empty()) graph_.RemoveInitializer(weight);
  }
}

Gradients Sweep::Run(std::span<const std::string> tensors, std::span<const Seed> seeds) {
  Gradients result;
  for (const std::string& name : tensors) wanted_.push_back(FindFloat(name));
  const std::vector<Node*> nodes = graph_.Nodes();
  const std::vector<Value*> initializers = graph_.Initializers();
  order_ = graph_.TopologicalOrder();
  MarkVarying();
  for (const Seed& seed : seeds) {
    Value* tensor = FindFloat(seed.tensor);
    Value* gradient = nullptr;
    if (seed.gradient.empty()) {
      gradient = graph_.AddGraphInput(graph_.FreshName("seed_" + seed.tensor),
                                      ValueType{types_.dtype(*tensor), false, {}});
    } else {
      gradient = FindFloat(seed.gradient);
    }
    result.seeds.push_back(gradient->name());
    if (varying_.count(tensor) > 0) Arrive(tensor, gradient);
  }
  for (auto node = order_.rbegin(); node != order_.rend(); ++node) Visit(*node);
  std::reverse(barriers_.begin(), barriers_.end());
  result.barriers = std::move(barriers_);

  // Identity nodes hold the results while the rest is cleared away.
  std::unordered_set<Node*> keep(nodes.begin(), nodes.end());
  for (Value* value : wanted_) {
    Value* gradient = cut_.count(value) > 0 ? nullptr : Gradient(value);
    if (gradient) {
      gradient = vjp_.Op("Identity", {gradient});
      keep.insert(gradient->producer());
    } else if (cut_.count(value) == 0) {
      result.unrelated.push_back(value->name());
    }
    result.values.push_back(gradient ? gradient->name() : std::string());
  }
  RemoveUnused(keep, {initializers.begin(), initializers.end()});
  return result;
}

}  // namespace

Gradients AddGradients(Model& model, std::span<const std::string> tensors,
                       std::span<const Seed> seeds) {
  if (model.opset() < kMinOpset) {
    throw UserError(
        ErrorCode::kUnsupported,
        fmt::format("gradients need opset {}, this model has {}", kMinOpset, model.opset()),
        "let the pass raise-opset run before")
        .InFile(model.source);
  }
  return Sweep(model).Run(tensors, seeds);
}

}  // namespace sparsefuse

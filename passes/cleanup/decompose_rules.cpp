#include "passes/cleanup/decompose_rules.h"

#include <fmt/format.h>

#include <utility>
#include <variant>

namespace sparsefuse {
namespace {

bool IsRead(const Value* value) {
  return value && (!value->uses().empty() || value->is_graph_output());
}

}  // namespace

bool FusedNode::Wants(size_t output) const { return IsRead(node_->output(output)); }

DType FusedNode::dtype(size_t input) const {
  return Has(input) ? types_->dtype(*node_->input(input)) : DType::kUndefined;
}

std::optional<int64_t> FusedNode::Rank(size_t input) const {
  return Has(input) ? types_->rank(*node_->input(input)) : std::nullopt;
}

std::optional<FusedNode::Dim> FusedNode::Find(size_t input, int64_t axis) const {
  if (!Has(input)) return std::nullopt;
  const std::optional<ValueType> type = types_->type(*node_->input(input));
  if (!type || !type->has_shape) return std::nullopt;
  const auto rank = static_cast<int64_t>(type->dims.size());
  const int64_t front = axis < 0 ? axis + rank : axis;
  if (front < 0 || front >= rank) return std::nullopt;
  return type->dims[static_cast<size_t>(front)];
}

std::optional<int64_t> FusedNode::Size(size_t input, int64_t axis) const {
  const std::optional<Dim> dim = Find(input, axis);
  const int64_t* number = dim ? std::get_if<int64_t>(&*dim) : nullptr;
  return number ? std::optional(*number) : std::nullopt;
}

bool FusedNode::SameSize(size_t a, int64_t axis_a, size_t b, int64_t axis_b) const {
  const std::optional<Dim> x = Find(a, axis_a), y = Find(b, axis_b);
  if (!x || !y || *x != *y) return false;
  const std::string* symbol = std::get_if<std::string>(&*x);
  return !symbol || !symbol->empty();
}

Value* Emitter::Named(Value* output, const std::string& op) {
  ++count_;
  if (!fused_.name().empty()) {
    output->producer()->set_name(fused_.graph()->FreshName(fused_.name() + "/" + op));
  }
  return output;
}

Value* Emitter::Op(std::string op, std::vector<Value*> inputs, Attributes attributes) {
  const std::string name = op;
  return Named(builder_.Op(std::move(op), std::move(inputs), std::move(attributes)), name);
}

Value* Emitter::Output(size_t output, std::string op, std::vector<Value*> inputs,
                       Attributes attributes) {
  Value* value = fused_.output(output);
  if (!IsRead(value)) {
    return Op(std::move(op), std::move(inputs), std::move(attributes));
  }
  const std::string name = op;
  builder_.OpAs(value, std::move(op), std::move(inputs), std::move(attributes));
  return Named(value, name);
}

std::vector<Value*> Emitter::Split(Value* x, int64_t axis, std::vector<int64_t> sizes) {
  Graph& graph = *fused_.graph();
  NewNode node;
  node.op = "Split";
  for (size_t i = 0; i < sizes.size(); ++i) node.outputs.push_back(graph.FreshName("s"));
  node.inputs = {x, Ints(std::move(sizes))};
  node.attributes = AttributeList("axis", axis);
  const Node* split = graph.AddNode(std::move(node), &fused_);
  Named(split->output(0), "Split");
  return split->outputs();
}

Value* Emitter::SizeOf(Value* x, int64_t axis) {
  return Op("Gather", {Op("Shape", {x}), Int(axis)});
}

const DecomposeRule* FindDecomposeRule(const Node& node) {
  for (const auto& family : {AttentionRules(), GroupedRules(), RotaryRules(), NormRules(),
                             ActivationRules(), ProductRules()}) {
    for (const DecomposeRule& rule : family) {
      if (node.Is(rule.op, rule.domain)) return &rule;
    }
  }
  return nullptr;
}

namespace {

// Fused operators without a rule.
std::optional<std::string> WhyNoRule(const Node& node) {
  if (node.domain() != kContrib) return std::nullopt;
  const std::string& op = node.op();
  const bool attention = op.find("Attention") != std::string::npos;
  if (!attention && op.find("LayerNormalization") == std::string::npos) return std::nullopt;
  if (op.starts_with("Q")) return "it is quantised";
  if (op.starts_with("Packed")) return "its batches are packed";
  if (op.starts_with("Decoder") || op.starts_with("Paged")) return "it has a cache of the past";
  return "decompose has no rule for it";
}

}  // namespace

std::optional<std::string> WhyNotDecomposed(const Node& node, KnownTypes& types, int64_t opset) {
  const DecomposeRule* rule = FindDecomposeRule(node);
  if (!rule) return WhyNoRule(node);
  if (opset < rule->opset) {
    return fmt::format("{} needs opset {}: run raise-opset first", rule->needed, rule->opset);
  }
  for (const size_t input : rule->required) {
    if (!node.input(input)) return fmt::format("it lacks input {}", input);
  }
  return rule->why_kept(FusedNode(node, types, opset));
}

std::optional<std::string> DecomposeAdvice(const Node& node, KnownTypes& types, int64_t opset) {
  std::optional<std::string> reason = WhyNotDecomposed(node, types, opset);
  if (reason && reason->empty()) reason = "run decompose first";
  return reason;
}

std::string WhyNotFloat(const FusedNode& fused, std::initializer_list<size_t> inputs) {
  for (const size_t input : inputs) {
    if (!fused.Has(input)) continue;
    const DType type = fused.dtype(input);
    if (type == DType::kFloat) continue;
    if (type == DType::kUndefined) return fmt::format("the type of input {} is not known", input);
    return fmt::format("input {} is {}, only float is taken apart", input, DTypeName(type));
  }
  return {};
}

}  // namespace sparsefuse

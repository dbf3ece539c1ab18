#include "passes/analysis/axis_flow.h"

#include <fmt/format.h>

#include <algorithm>
#include <functional>

#include "passes/analysis/axis_rules.h"
#include "passes/cleanup/decompose_rules.h"

namespace sparsefuse {
namespace {

// More sources than this are as good as all.
constexpr size_t kMaxSources = 16;

bool HasSubgraph(const Node& node) {
  return std::any_of(node.attributes().begin(), node.attributes().end(), [](const Attribute& a) {
    return std::holds_alternative<std::unique_ptr<Graph>>(a.data) ||
           std::holds_alternative<std::vector<std::unique_ptr<Graph>>>(a.data);
  });
}

AxisRule FindRule(const Node& node) {
  if (!node.domain().empty() || HasSubgraph(node)) return nullptr;
  for (const auto* table : {&ComputeRules(), &ShapeRules()}) {
    const auto found = table->find(node.op());
    if (found != table->end()) return found->second;
  }
  return nullptr;
}

// Gelu and its kin exist as contrib operators too, with the same axes.
bool IsContribUnary(const Node& node) {
  return node.domain() == "com.microsoft" && (node.op() == "Gelu" || node.op() == "QuickGelu" ||
                                              node.op() == "FastGelu" || node.op() == "BiasGelu");
}

}  // namespace

std::optional<size_t> FromFront(int64_t axis, size_t rank) {
  const int64_t front = axis < 0 ? axis + static_cast<int64_t>(rank) : axis;
  if (front < 0 || front >= static_cast<int64_t>(rank)) return std::nullopt;
  return static_cast<size_t>(front);
}

const Axes* AxisTracer::Find(const Value* value) {
  if (!value) return nullptr;
  const auto found = flow.axes.find(value);
  if (found != flow.axes.end()) return &found->second;
  const Tensor* constant = value->constant();
  if (!constant) return nullptr;
  Axes axes;
  for (const int64_t dim : constant->dims()) axes.push_back(atoms().NewLeaf(dim));
  return &(flow.axes[value] = std::move(axes));
}

std::optional<std::vector<int64_t>> AxisTracer::Sizes(const Value* value) {
  std::optional<ValueType> type = types_.type(*value);
  if (!type && value->is_graph_input()) type = value->type();
  if (!type || !type->has_shape) return std::nullopt;
  std::vector<int64_t> sizes;
  for (const auto& dim : type->dims) {
    const int64_t* number = std::get_if<int64_t>(&dim);
    sizes.push_back(number ? *number : AxisAtoms::kOpen);
  }
  return sizes;
}

void AxisTracer::FreezeFrom(const Value* value, size_t first_axis, const std::string& reason) {
  const Axes* axes = Find(value);
  for (size_t i = first_axis; axes && i < axes->size(); ++i) atoms().Freeze((*axes)[i], reason);
}

void AxisTracer::FreezeAll(const Value* value, const std::string& reason) {
  FreezeFrom(value, 0, reason);
}

void AxisTracer::FreezeNumbers(const Value* value) {
  const ShapeNumbers* known = numbers.Find(value);
  if (!known) return;
  for (const ShapeNumber& number : known->elements) {
    for (const AxisId axis : number.computed_from) {
      atoms().Freeze(axis, "its size is used as a number");
    }
  }
}

void AxisTracer::AddSize(const SizeUse& use) {
  flow.sizes.push_back(use);
  if (!use.attribute.empty() || !use.node->input(use.input)) return;
  const ShapeNumbers* known = numbers.Find(use.node->input(use.input));
  const auto element = static_cast<size_t>(use.element);
  if (!known || element >= known->elements.size()) return;
  const std::vector<AxisId> here = atoms().Leaves(use.axis);
  for (const AxisId from : known->elements[element].computed_from) {
    for (const AxisId leaf : atoms().Leaves(from)) {
      if (std::find(here.begin(), here.end(), leaf) != here.end()) continue;
      atoms().Freeze(leaf, "its size is used as a number");
    }
  }
}

void AxisTracer::SetFrozen(const Value* value, const std::string& reason) {
  if (!value) return;
  const auto sizes = Sizes(value);
  if (!sizes) return;
  Axes axes;
  for (const int64_t size : *sizes) axes.push_back(atoms().NewFrozen(size, reason));
  Set(value, std::move(axes));
}

void AxisTracer::Opaque(const Node& node, const std::string& reason) {
  for (const Value* input : node.inputs()) {
    if (!input) continue;
    FreezeAll(input, reason);
    FreezeNumbers(input);
  }
  for (const Value* output : node.outputs()) SetFrozen(output, reason);
}

std::optional<Axes> AxisTracer::Broadcast(const std::vector<const Value*>& values) {
  Axes result;
  for (const Value* value : values) {
    const Axes* axes = Find(value);
    if (!axes) return std::nullopt;
    if (axes->size() > result.size()) {
      result.insert(result.begin(), axes->size() - result.size(), AxisAtoms::kOne);
    }
    const size_t offset = result.size() - axes->size();
    const Axes copy = *axes;
    for (size_t i = 0; i < copy.size(); ++i) {
      AxisId& mine = result[offset + i];
      if (atoms().Same(copy[i], AxisAtoms::kOne)) continue;
      if (!atoms().Same(mine, AxisAtoms::kOne)) atoms().Unify(mine, copy[i]);
      mine = copy[i];
    }
  }
  return result;
}

std::optional<std::vector<int64_t>> AxisTracer::Integers(const Node& node,
                                                         std::string_view attribute, size_t input,
                                                         bool* absent) {
  const Attribute* found = node.attribute(attribute);
  if (absent) *absent = !found && !node.input(input);
  if (found) return node.GetInts(attribute, {});
  if (!node.input(input)) return std::nullopt;
  return numbers.Integers(node.input(input));
}

// Of a node without a rule.
std::string AxisTracer::WhyOpaque(const Node& node) {
  if (HasSubgraph(node)) return fmt::format("crosses the boundary of {}", node.op());
  const std::string name =
      node.domain().empty() ? node.op() : fmt::format("{}.{}", node.domain(), node.op());
  const std::optional<std::string> fused = DecomposeAdvice(node, types_, opset());
  if (!fused) return fmt::format("no axis rule for {}", name);
  return fmt::format("inside the fused {}: {}", name, *fused);
}

// Values of this graph that the node's subgraphs read.
void AxisTracer::FreezeCaptured(const Node& node, const std::string& reason) {
  const auto walk = [&](const Graph& body) {
    ForEachGraph(body, [&](const Graph& graph) {
      for (const Node* inner : graph.Nodes()) {
        for (const Value* input : inner->inputs()) {
          if (input && input->graph() == &model_.graph()) FreezeAll(input, reason);
        }
      }
    });
  };
  for (const Attribute& attribute : node.attributes()) {
    if (const auto* one = std::get_if<std::unique_ptr<Graph>>(&attribute.data)) walk(**one);
    if (const auto* many = std::get_if<std::vector<std::unique_ptr<Graph>>>(&attribute.data)) {
      for (const auto& body : *many) walk(*body);
    }
  }
}

// Keeps sources_ up to date, and notes where activations that different products made are added.
void AxisTracer::JoinProducts(const Node& node) {
  const bool product = !flow.events.empty() && flow.events.back().node == &node &&
                       (node.Is("MatMul") || node.Is("Gemm") || node.Is("Conv") ||
                        node.Is("ConvTranspose") || node.Is("Einsum"));
  std::vector<const Node*> all;
  std::vector<const std::vector<const Node*>*> parts;
  for (const Value* input : node.inputs()) {
    const auto found = sources_.find(input);
    if (found == sources_.end() || found->second.empty()) continue;
    parts.push_back(&found->second);
    all.insert(all.end(), found->second.begin(), found->second.end());
  }
  if ((node.Is("Add") || node.Is("Sum")) && parts.size() > 1) {
    const bool differ = std::any_of(parts.begin() + 1, parts.end(),
                                    [&](const auto* part) { return *part != *parts[0]; });
    const Axes* axes = differ ? Find(node.output(0)) : nullptr;
    for (size_t i = 0; axes && i < axes->size(); ++i) Record(AxisRole::kJoined, node, (*axes)[i]);
  }
  if (product) all = {&node};
  std::sort(all.begin(), all.end());
  all.erase(std::unique(all.begin(), all.end()), all.end());
  if (all.size() > kMaxSources) all.resize(kMaxSources);
  for (const Value* output : node.outputs()) {
    if (output && !all.empty()) sources_[output] = all;
  }
}

void AxisTracer::Apply(const Node& node) {
  if (node.Is("Constant")) return;
  const auto dynamic = [&](const Value* v) { return flow.dynamic.count(v) > 0; };
  const bool runs = std::any_of(node.inputs().begin(), node.inputs().end(), dynamic) ||
                    HasSubgraph(node) || node.op().find("Random") == 0;
  for (const Value* output : node.outputs()) {
    if (output && runs) flow.dynamic.insert(output);
  }
  numbers.Learn(
      node, [&](const Value* v) { return Find(v); }, atoms());
  AxisRule rule = FindRule(node);
  if (!rule && IsContribUnary(node)) rule = ComputeRules().at("Add");
  if (rule) {
    rule(*this, node);
  } else {
    const std::string reason = WhyOpaque(node);
    Opaque(node, reason);
    FreezeCaptured(node, reason);
  }
  JoinProducts(node);
}

AxisFlow AxisTracer::Run() {
  const Graph& graph = model_.graph();
  for (const Value* input : graph.inputs()) {
    if (input->constant()) continue;
    flow.dynamic.insert(input);
    SetFrozen(input, "axis of a graph input");
  }
  for (const Node* node : graph.TopologicalOrder()) Apply(*node);
  for (const Value* output : graph.outputs()) FreezeAll(output, "axis of a graph output");
  return std::move(flow);
}

AxisFlow TraceAxes(const Model& model) { return AxisTracer(model).Run(); }

}  // namespace sparsefuse

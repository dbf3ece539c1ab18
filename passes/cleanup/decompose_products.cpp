// Products with something before or after:
//   FusedMatMul   α · op(A) · op(B), op a transposition of the last two axes or nothing
//   FusedGemm     activation(Gemm)
//   FusedConv     activation(Conv + Z)

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "passes/cleanup/decompose_rules.h"

namespace sparsefuse {
namespace {

std::string WhyMatMulKept(const FusedNode& fused) {
  const Node& node = fused.node();
  if (node.GetInt("transBatchA", 0) || node.GetInt("transBatchB", 0)) {
    return "it transposes batch axes";
  }
  for (const size_t input : {size_t{0}, size_t{1}}) {
    if (!node.GetInt(input == 0 ? "transA" : "transB", 0)) continue;
    const std::optional<int64_t> rank = fused.Rank(input);
    if (!rank) return "it transposes an operand of unknown rank";
    if (*rank < 2) return "it transposes a vector";
  }
  return WhyNotFloat(fused, {0, 1});
}

void EmitMatMul(const FusedNode& fused, Emitter& emitter) {
  const auto operand = [&](size_t input, const char* transposed) {
    Value* x = emitter.input(input);
    if (!fused.node().GetInt(transposed, 0)) return x;
    std::vector<int64_t> perm;
    for (int64_t i = 0; i < *fused.Rank(input); ++i) perm.push_back(i);
    std::swap(perm[perm.size() - 1], perm[perm.size() - 2]);
    return emitter.Transpose(x, std::move(perm));
  };
  Value* a = operand(0, "transA");
  Value* b = operand(1, "transB");
  const float alpha = fused.node().GetFloat("alpha", 1);
  if (alpha == 1) {
    emitter.Output(0, "MatMul", {a, b});
  } else {
    emitter.Output(0, "Mul", {emitter.Op("MatMul", {a, b}), emitter.Float(alpha)});
  }
}

// An activation with the parameters that the fused operators carry for it, in their order.
struct Activation {
  std::string_view op;
  std::vector<std::string_view> parameters;
};

const Activation* FindActivation(std::string_view op) {
  static const Activation activations[] = {{"Relu", {}},
                                           {"Sigmoid", {}},
                                           {"Tanh", {}},
                                           {"LeakyRelu", {"alpha"}},
                                           {"HardSigmoid", {"alpha", "beta"}}};
  const auto found =
      std::find_if(std::begin(activations), std::end(activations),
                   [&](const Activation& activation) { return activation.op == op; });
  return found == std::end(activations) ? nullptr : found;
}

std::string Unknown(const std::string& activation) {
  return fmt::format("no rule for its activation \"{}\"", Printable(activation));
}

// The node itself without its activation: attributes that the plain operator has too.
Attributes Plain(const Node& node, std::initializer_list<std::string_view> names) {
  Attributes attributes;
  for (const std::string_view name : names) {
    const Attribute* attribute = node.attribute(name);
    if (!attribute) continue;
    if (const auto* i = std::get_if<int64_t>(&attribute->data)) {
      attributes.emplace_back(name, *i);
    } else if (const auto* f = std::get_if<float>(&attribute->data)) {
      attributes.emplace_back(name, *f);
    } else if (const auto* s = std::get_if<std::string>(&attribute->data)) {
      attributes.emplace_back(name, *s);
    } else if (const auto* list = std::get_if<std::vector<int64_t>>(&attribute->data)) {
      attributes.emplace_back(name, *list);
    }
  }
  return attributes;
}

std::string WhyGemmKept(const FusedNode& fused) {
  const std::string activation = fused.node().GetString("activation", "");
  const Activation* known = FindActivation(activation);
  if (!known) return Unknown(activation);
  for (const std::string_view parameter : known->parameters) {
    if (!fused.node().attribute(fmt::format("activation_{}", parameter))) {
      return fmt::format("its activation has no {}", parameter);
    }
  }
  return WhyNotFloat(fused, {0, 1});
}

void EmitGemm(const FusedNode& fused, Emitter& emitter) {
  const Node& node = fused.node();
  Value* product =
      emitter.Op("Gemm", node.inputs(), Plain(node, {"alpha", "beta", "transA", "transB"}));
  const Activation& activation = *FindActivation(node.GetString("activation", ""));
  Attributes attributes;
  for (const std::string_view parameter : activation.parameters) {
    attributes.emplace_back(parameter, node.GetFloat(fmt::format("activation_{}", parameter), 0));
  }
  emitter.Output(0, std::string(activation.op), {product}, std::move(attributes));
}

const std::vector<float>* ConvParameters(const Node& node) {
  static const std::vector<float> none;
  const Attribute* attribute = node.attribute("activation_params");
  return attribute ? std::get_if<std::vector<float>>(&attribute->data) : &none;
}

std::string WhyConvKept(const FusedNode& fused) {
  const std::string activation = fused.node().GetString("activation", "");
  const std::vector<float>* parameters = ConvParameters(fused.node());
  const Activation* known = FindActivation(activation);
  const size_t wanted = known ? known->parameters.size() : 2;
  if (!activation.empty() && !known && activation != "Clip") return Unknown(activation);
  if (!activation.empty() && (!parameters || parameters->size() != wanted)) {
    return "its activation has an unexpected number of parameters";
  }
  return WhyNotFloat(fused, {0, 1});
}

void EmitConv(const FusedNode& fused, Emitter& emitter) {
  const Node& node = fused.node();
  const std::string activation = node.GetString("activation", "");
  Attributes attributes =
      Plain(node, {"auto_pad", "dilations", "group", "kernel_shape", "pads", "strides"});
  std::vector<Value*> inputs = {node.input(0), node.input(1)};
  if (fused.Has(2)) inputs.push_back(node.input(2));
  if (!fused.Has(3) && activation.empty()) {
    emitter.Output(0, "Conv", std::move(inputs), std::move(attributes));
    return;
  }
  Value* x = emitter.Op("Conv", std::move(inputs), std::move(attributes));
  if (fused.Has(3) && activation.empty()) {
    emitter.Output(0, "Add", {x, node.input(3)});
    return;
  }
  if (fused.Has(3)) x = emitter.Op("Add", {x, node.input(3)});
  const std::vector<float>& parameters = *ConvParameters(node);
  if (activation == "Clip") {
    emitter.Output(0, "Clip", {x, emitter.Float(parameters[0]), emitter.Float(parameters[1])});
    return;
  }
  Attributes settings;
  for (size_t i = 0; i < parameters.size(); ++i) {
    settings.emplace_back(FindActivation(activation)->parameters[i], parameters[i]);
  }
  emitter.Output(0, activation, {x}, std::move(settings));
}

}  // namespace

std::span<const DecomposeRule> ProductRules() {
  static const DecomposeRule rules[] = {
      {"FusedMatMul", kContrib, 7, "Mul", {0, 1}, WhyMatMulKept, EmitMatMul},
      {"FusedGemm", kContrib, 11, "Gemm", {0, 1}, WhyGemmKept, EmitGemm},
      {"FusedConv", kContrib, 11, "Clip", {0, 1}, WhyConvKept, EmitConv}};
  return rules;
}

}  // namespace sparsefuse

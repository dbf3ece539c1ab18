// Activations of com.microsoft, in the forms that exporters write and ONNX Runtime recognises when
// it loads the model:
//   Gelu, BiasGelu   x·½·(1 + erf(x/√2))
//   FastGelu         x·½·(1 + tanh(√(2/π)·(x + 0.044715 x³)))
//   QuickGelu        x·σ(αx)
// From opset 20 on the first two are ONNX's Gelu.

#include <cmath>
#include <numbers>

#include "passes/cleanup/decompose_rules.h"

namespace sparsefuse {
namespace {

constexpr int64_t kGeluOpset = 20;
constexpr double kSqrt2OverPi = std::numbers::sqrt2 * std::numbers::inv_sqrtpi;

std::string WhyActivationKept(const FusedNode& fused) { return WhyNotFloat(fused, {0, 1}); }

Value* Biased(const FusedNode& fused, Emitter& emitter) {
  return fused.Has(1) ? emitter.Op("Add", {emitter.input(0), emitter.input(1)}) : emitter.input(0);
}

void EmitGelu(const FusedNode& fused, Emitter& emitter) {
  Value* x = Biased(fused, emitter);
  if (emitter.opset() >= kGeluOpset) {
    emitter.Output(0, "Gelu", {x});
    return;
  }
  Value* scaled = emitter.Op("Div", {x, emitter.Float(std::numbers::sqrt2_v<float>)});
  Value* sum = emitter.Op("Add", {emitter.Op("Erf", {scaled}), emitter.Float(1)});
  emitter.Output(0, "Mul", {emitter.Op("Mul", {x, sum}), emitter.Float(0.5F)});
}

void EmitFastGelu(const FusedNode& fused, Emitter& emitter) {
  Value* x = Biased(fused, emitter);
  if (emitter.opset() >= kGeluOpset) {
    emitter.Output(0, "Gelu", {x}, AttributeList("approximate", std::string("tanh")));
    return;
  }
  Value* cube = emitter.Op("Pow", {x, emitter.Float(3)});
  Value* inner = emitter.Op("Add", {x, emitter.Op("Mul", {cube, emitter.Float(0.044715F)})});
  Value* scaled = emitter.Op("Mul", {inner, emitter.Float(static_cast<float>(kSqrt2OverPi))});
  Value* sum = emitter.Op("Add", {emitter.Op("Tanh", {scaled}), emitter.Float(1)});
  emitter.Output(0, "Mul", {emitter.Op("Mul", {x, emitter.Float(0.5F)}), sum});
}

void EmitQuickGelu(const FusedNode& fused, Emitter& emitter) {
  Value* x = emitter.input(0);
  const float alpha = fused.node().GetFloat("alpha", 1.702F);
  Value* scaled = alpha == 1 ? x : emitter.Op("Mul", {x, emitter.Float(alpha)});
  emitter.Output(0, "Mul", {x, emitter.Op("Sigmoid", {scaled})});
}

}  // namespace

std::span<const DecomposeRule> ActivationRules() {
  static const DecomposeRule rules[] = {
      {"Gelu", kContrib, 9, "Erf", {0}, WhyActivationKept, EmitGelu},
      {"BiasGelu", kContrib, 9, "Erf", {0, 1}, WhyActivationKept, EmitGelu},
      {"FastGelu", kContrib, 7, "Pow", {0}, WhyActivationKept, EmitFastGelu},
      {"QuickGelu", kContrib, 7, "Mul", {0}, WhyActivationKept, EmitQuickGelu}};
  return rules;
}

}  // namespace sparsefuse

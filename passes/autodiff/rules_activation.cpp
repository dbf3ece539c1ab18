// Activation functions (declared in rules_elementwise.h). At a kink the slope of one side is taken.

#include <string>

#include "passes/autodiff/rules_elementwise.h"

namespace sparsefuse {
namespace {

constexpr double kSqrt2 = 1.4142135623730951;
constexpr double kInverseSqrtTwoPi = 0.3989422804014327;
constexpr double kSqrtTwoOverPi = 0.7978845608028654;
constexpr double kGeluCubic = 0.044715;

// Φ(x) + x·φ(x)
Value* GeluSlope(Vjp& v, Value* x) {
  Value* erf = v.Op("Erf", {v.Mul(x, v.Number(1 / kSqrt2))});
  Value* below = v.Mul(v.Add(erf, v.Number(1)), v.Number(0.5));
  Value* bell = v.Op("Exp", {v.Mul(v.Mul(x, x), v.Number(-0.5))});
  return v.Add(below, v.Mul(v.Mul(x, bell), v.Number(kInverseSqrtTwoPi)));
}

// t = tanh(c(x + a·x³)): ½(1 + t) + ½x(1 − t²)·c(1 + 3a·x²)
Value* TanhGeluSlope(Vjp& v, Value* x) {
  Value* square = v.Mul(x, x);
  Value* cubic = v.Mul(x, v.Add(v.Mul(square, v.Number(kGeluCubic)), v.Number(1)));
  Value* t = v.Op("Tanh", {v.Mul(cubic, v.Number(kSqrtTwoOverPi))});
  Value* inner =
      v.Add(v.Mul(square, v.Number(3 * kGeluCubic * kSqrtTwoOverPi)), v.Number(kSqrtTwoOverPi));
  Value* steep = v.Mul(v.Mul(x, v.Sub(v.Number(1), v.Mul(t, t))), inner);
  return v.Mul(v.Add(v.Add(t, v.Number(1)), steep), v.Number(0.5));
}

// σ(αx)·(1 + αx(1 − σ(αx)))
Value* SwishSlope(Vjp& v, Value* x, double alpha) {
  Value* scaled = v.Mul(x, v.Number(alpha));
  Value* s = v.Op("Sigmoid", {scaled});
  return v.Mul(s, v.Add(v.Mul(scaled, v.Sub(v.Number(1), s)), v.Number(1)));
}

}  // namespace

void GradTanh(Vjp& v) { v.Give(0, v.Mul(v.dy(), v.Sub(v.Number(1), v.Mul(v.y(), v.y())))); }

void GradSigmoid(Vjp& v) { v.Give(0, v.Mul(v.dy(), v.Mul(v.y(), v.Sub(v.Number(1), v.y())))); }

void GradRelu(Vjp& v) { v.Give(0, v.Keep(v.Op("Greater", {v.x(), v.Number(0)}), v.dy())); }

void GradLeakyRelu(Vjp& v) {
  Value* positive = v.Op("GreaterOrEqual", {v.x(), v.Number(0)});
  Value* leak = v.Mul(v.dy(), v.Number(v.node().GetFloat("alpha", 0.01f)));
  v.Give(0, v.Op("Where", {positive, v.dy(), leak}));
}

// x > 0: 1, else α·eˣ = y + α
void GradElu(Vjp& v) {
  Value* positive = v.Op("Greater", {v.x(), v.Number(0)});
  Value* slope = v.Add(v.y(), v.Number(v.node().GetFloat("alpha", 1.0f)));
  v.Give(0, v.Op("Where", {positive, v.dy(), v.Mul(v.dy(), slope)}));
}

void GradSoftplus(Vjp& v) { v.Give(0, v.Mul(v.dy(), v.Op("Sigmoid", {v.x()}))); }

void GradClip(Vjp& v) {
  if (!v.Wants(0)) return;
  Value* g = v.dy();
  if (Value* low = v.x(1)) g = v.Keep(v.Op("GreaterOrEqual", {v.x(), low}), g);
  if (Value* high = v.x(2)) g = v.Keep(v.Op("LessOrEqual", {v.x(), high}), g);
  v.Give(0, g);
}

// y = clip(αx + β, 0, 1)
void GradHardSigmoid(Vjp& v) {
  Value* g = v.Mul(v.dy(), v.Number(v.node().GetFloat("alpha", 0.2f)));
  g = v.Keep(v.Op("Greater", {v.y(), v.Number(0)}), g);
  v.Give(0, v.Keep(v.Op("Less", {v.y(), v.Number(1)}), g));
}

// y = x·clip(x/6 + ½, 0, 1): x/3 + ½ between −3 and 3, outside 0 and 1
void GradHardSwish(Vjp& v) {
  Value* slope = v.Add(v.Mul(v.x(), v.Number(1.0 / 3)), v.Number(0.5));
  Value* right = v.Op("Where", {v.Op("Less", {v.x(), v.Number(3)}), slope, v.Number(1)});
  v.Give(0, v.Mul(v.dy(), v.Keep(v.Op("Greater", {v.x(), v.Number(-3)}), right)));
}

// t = tanh(softplus(x)): t + x·σ(x)·(1 − t²)
void GradMish(Vjp& v) {
  Value* t = v.Op("Tanh", {v.Op("Softplus", {v.x()})});
  Value* inner = v.Mul(v.Mul(v.x(), v.Op("Sigmoid", {v.x()})), v.Sub(v.Number(1), v.Mul(t, t)));
  v.Give(0, v.Mul(v.dy(), v.Add(t, inner)));
}

void GradGelu(Vjp& v) {
  const bool tanh = v.node().GetString("approximate", "none") == "tanh";
  v.Give(0, v.Mul(v.dy(), tanh ? TanhGeluSlope(v, v.x()) : GeluSlope(v, v.x())));
}

// Its optional second input is a bias, added first.
void GradFastGelu(Vjp& v) {
  Value* x = v.x(1) ? v.Add(v.x(0), v.x(1)) : v.x(0);
  Value* g = v.Mul(v.dy(), TanhGeluSlope(v, x));
  if (v.Wants(0)) v.Give(0, g);
  if (v.Wants(1)) v.GiveSummed(1, g);
}

void GradQuickGelu(Vjp& v) {
  const double alpha = v.node().GetFloat("alpha", 1.702f);
  v.Give(0, v.Mul(v.dy(), SwishSlope(v, v.x(), alpha)));
}

}  // namespace sparsefuse

#include "passes/autodiff/rules_elementwise.h"

#include <vector>

namespace sparsefuse {
namespace {

// 1 for a scalar or one-element constant input that holds `number`.
bool IsConstant(Vjp& v, size_t i, double number) {
  const Tensor* constant = v.node().constant_input(i);
  if (!constant || constant->size() != 1) return false;
  const bool floating = IsFloating(constant->dtype());
  return floating ? constant->ToFloats()[0] == number
                  : static_cast<double>(constant->ToInts()[0]) == number;
}

// Pow's exponent may be of another type than its base and result.
Value* Converted(Vjp& v, Value* value) {
  return v.dtype(value) == v.dtype(v.x()) ? value : v.Cast(value, v.dtype(v.x()));
}

}  // namespace

void GradAdd(Vjp& v) {
  for (size_t i = 0; i < v.input_count(); ++i) {
    if (v.Wants(i)) v.GiveSummed(i, v.dy());
  }
}

void GradSub(Vjp& v) {
  if (v.Wants(0)) v.GiveSummed(0, v.dy());
  if (v.Wants(1)) v.GiveSummed(1, v.Op("Neg", {v.dy()}));
}

void GradMul(Vjp& v) {
  if (v.Wants(0)) v.GiveSummed(0, v.Mul(v.dy(), v.x(1)));
  if (v.Wants(1)) v.GiveSummed(1, v.Mul(v.dy(), v.x(0)));
}

void GradDiv(Vjp& v) {
  Value* scaled = v.Div(v.dy(), v.x(1));
  if (v.Wants(0)) v.GiveSummed(0, scaled);
  if (v.Wants(1)) v.GiveSummed(1, v.Op("Neg", {v.Mul(scaled, v.y())}));
}

// y = x^e: dx = dy·e·x^(e−1), de = dy·y·ln x where x > 0
void GradPow(Vjp& v) {
  Value *x = v.x(0), *dy = v.dy();
  if (v.Wants(0)) {
    if (IsConstant(v, 1, 2)) {
      v.GiveSummed(0, v.Mul(dy, v.Mul(x, v.Number(2))));
    } else {
      Value* e = Converted(v, v.x(1));
      Value* slope = v.Mul(e, v.Op("Pow", {x, v.Sub(e, v.Number(1))}));
      // x^0 is 1 everywhere, where 0·x^(−1) may be no number.
      Value* flat = v.Op("Equal", {e, v.Number(0)});
      v.GiveSummed(0, v.Mul(dy, v.Op("Where", {flat, v.Number(0), slope})));
    }
  }
  if (v.Wants(1)) {
    Value* positive = v.Op("Greater", {x, v.Number(0)});
    Value* log = v.Op("Log", {v.Op("Where", {positive, x, v.Number(1)})});
    Value* g = v.SumTo(v.Mul(dy, v.Mul(v.y(), log)), v.lengths(v.y()), v.x(1));
    v.Give(1, v.dtype(v.x(1)) == v.dtype(x) ? g : v.Cast(g, v.dtype(v.x(1))));
  }
}

// Shared evenly among the inputs that are equal to the result.
void GradExtremum(Vjp& v) {
  std::vector<Value*> hits;
  for (size_t i = 0; i < v.input_count(); ++i) {
    hits.push_back(v.Cast(v.Op("Equal", {v.x(i), v.y()}), v.dtype(v.x())));
  }
  Value* share = hits.size() == 1 ? v.dy() : v.Div(v.dy(), v.Op("Sum", hits));
  for (size_t i = 0; i < hits.size(); ++i) {
    if (v.Wants(i)) v.GiveSummed(i, v.Mul(share, hits[i]));
  }
}

void GradAverage(Vjp& v) {
  Value* share = v.Mul(v.dy(), v.Number(1.0 / static_cast<double>(v.input_count())));
  for (size_t i = 0; i < v.input_count(); ++i) {
    if (v.Wants(i)) v.GiveSummed(i, share);
  }
}

void GradWhere(Vjp& v) {
  Value* zero = v.ShapedBuilder::Number(0, v.y());
  if (v.Wants(1)) v.GiveSummed(1, v.Op("Where", {v.x(0), v.dy(), zero}));
  if (v.Wants(2)) v.GiveSummed(2, v.Op("Where", {v.x(0), zero, v.dy()}));
}

void GradPRelu(Vjp& v) {
  Value* negative = v.Op("Less", {v.x(), v.Number(0)});
  if (v.Wants(0)) v.Give(0, v.Op("Where", {negative, v.Mul(v.dy(), v.x(1)), v.dy()}));
  if (v.Wants(1)) v.GiveSummed(1, v.Keep(negative, v.Mul(v.dy(), v.x(0))));
}

void GradIdentity(Vjp& v) { v.Give(0, v.dy()); }

void GradDropout(Vjp& v) {
  if (v.node().input(2) && !IsConstant(v, 2, 0)) {
    throw NoGradient{
        "only its inference form has a gradient: training_mode must be constant false"};
  }
  if (v.Wants(0)) v.Give(0, v.dy());
}

void GradCast(Vjp& v) { v.Give(0, v.Cast(v.dy(), v.dtype(v.x()))); }

void GradNeg(Vjp& v) { v.Give(0, v.Op("Neg", {v.dy()})); }

void GradAbs(Vjp& v) { v.Give(0, v.Mul(v.dy(), v.Op("Sign", {v.x()}))); }

void GradReciprocal(Vjp& v) { v.Give(0, v.Op("Neg", {v.Mul(v.dy(), v.Mul(v.y(), v.y()))})); }

void GradSqrt(Vjp& v) { v.Give(0, v.Div(v.Mul(v.dy(), v.Number(0.5)), v.y())); }

void GradExp(Vjp& v) { v.Give(0, v.Mul(v.dy(), v.y())); }

void GradLog(Vjp& v) { v.Give(0, v.Div(v.dy(), v.x())); }

void GradSin(Vjp& v) { v.Give(0, v.Mul(v.dy(), v.Op("Cos", {v.x()}))); }

void GradCos(Vjp& v) { v.Give(0, v.Op("Neg", {v.Mul(v.dy(), v.Op("Sin", {v.x()}))})); }

// 2/√π · e^(−x²)
void GradErf(Vjp& v) {
  Value* bell = v.Op("Exp", {v.Op("Neg", {v.Mul(v.x(), v.x())})});
  v.Give(0, v.Mul(v.dy(), v.Mul(bell, v.Number(1.1283791670955126))));
}

}  // namespace sparsefuse

#include "passes/autodiff/rules_normalization.h"

#include <vector>

namespace sparsefuse {
namespace {

using Axes = std::vector<int64_t>;

// 1/√(square + ε)
Value* InverseRoot(Vjp& v, Value* square, float epsilon) {
  return v.Op("Reciprocal", {v.Op("Sqrt", {v.Add(square, v.Number(epsilon))})});
}

struct Normalized {
  Value *x_hat, *inverse;  // (x − mean)/σ and 1/σ
};

// `centered`: the mean is taken off first.
Normalized Normalize(Vjp& v, const Axes& axes, bool centered, float epsilon) {
  Value* x = v.x();
  if (centered) x = v.Sub(x, v.Mean(x, axes, v.x()));
  Value* inverse = InverseRoot(v, v.Mean(v.Mul(x, x), axes, v.x()), epsilon);
  return {v.Mul(x, inverse), inverse};
}

// Through x̂: (g − mean g − x̂·mean(g·x̂))/σ, without mean g where no mean was taken off.
Value* ThroughNormalized(Vjp& v, Value* g, const Normalized& n, const Axes& axes, bool centered) {
  Value* along = v.Mul(n.x_hat, v.Mean(v.Mul(g, n.x_hat), axes, v.x()));
  Value* rest = centered ? v.Sub(g, v.Mean(g, axes, v.x())) : g;
  return v.Mul(v.Sub(rest, along), n.inverse);
}

// y = x̂·γ (+ β), normalised over the axes from `axis` on.
void GradOverLastAxes(Vjp& v, bool centered) {
  const int64_t axis = v.Axis(v.x(), v.node().GetInt("axis", -1));
  const Axes axes = AxisRange(axis, v.NeedRank(v.x()));
  const Normalized n = Normalize(v, axes, centered, v.node().GetFloat("epsilon", 1e-5f));
  if (v.Wants(0)) {
    v.Give(0, ThroughNormalized(v, v.Mul(v.dy(), v.x(1)), n, axes, centered));
  }
  if (v.Wants(1)) v.GiveSummed(1, v.Mul(v.dy(), n.x_hat));
  if (v.Wants(2)) v.GiveSummed(2, v.dy());
}

// A vector of channels as [C, 1, …], to be broadcast along [N, C, …].
Value* PerChannel(Vjp& v, Value* channels, int64_t rank) {
  Axes shape(static_cast<size_t>(rank - 1), 1);
  shape[0] = -1;
  return v.Op("Reshape", {channels, v.Ints(shape)});
}

// Σ over all axes but the channels'.
Value* ToChannels(Vjp& v, Value* g, int64_t rank) {
  Axes axes = AxisRange(1, rank);
  axes[0] = 0;
  return v.Sum(g, axes, false);
}

}  // namespace

void GradSoftmax(Vjp& v) {
  const int64_t axis = v.node().GetInt("axis", -1);
  Value* weighted = v.Mul(v.dy(), v.y());
  v.Give(0, v.Sub(weighted, v.Mul(v.y(), v.Sum(weighted, {axis}, true))));
}

void GradLogSoftmax(Vjp& v) {
  const int64_t axis = v.node().GetInt("axis", -1);
  v.Give(0, v.Sub(v.dy(), v.Mul(v.Op("Exp", {v.y()}), v.Sum(v.dy(), {axis}, true))));
}

void GradLayerNormalization(Vjp& v) { GradOverLastAxes(v, true); }

void GradRmsNormalization(Vjp& v) { GradOverLastAxes(v, false); }

void GradInstanceNormalization(Vjp& v) {
  const int64_t rank = v.NeedRank(v.x());
  const Axes axes = AxisRange(2, rank);
  const Normalized n = Normalize(v, axes, true, v.node().GetFloat("epsilon", 1e-5f));
  if (v.Wants(0)) {
    Value* g = v.Mul(v.dy(), PerChannel(v, v.x(1), rank));
    v.Give(0, ThroughNormalized(v, g, n, axes, true));
  }
  if (v.Wants(1)) v.Give(1, ToChannels(v, v.Mul(v.dy(), n.x_hat), rank));
  if (v.Wants(2)) v.Give(2, ToChannels(v, v.dy(), rank));
}

// y = γ(x − μ)/√(σ² + ε) + β with given μ and σ²
void GradBatchNormalization(Vjp& v) {
  if (v.node().GetInt("training_mode", 0) != 0) {
    throw NoGradient{"only its inference form has a gradient"};
  }
  const int64_t rank = v.NeedRank(v.x());
  if (rank < 2) throw NoGradient{"its input has no axis of channels"};
  Value* inverse = InverseRoot(v, v.x(4), v.node().GetFloat("epsilon", 1e-5f));
  Value* slope = v.Mul(v.x(1), inverse);
  if (v.Wants(0)) v.Give(0, v.Mul(v.dy(), PerChannel(v, slope, rank)));
  Value* total = ToChannels(v, v.dy(), rank);
  Value* centered = v.Sub(v.x(0), PerChannel(v, v.x(3), rank));
  Value* along = v.Mul(ToChannels(v, v.Mul(v.dy(), centered), rank), inverse);  // Σ dy·x̂
  if (v.Wants(1)) v.Give(1, along);
  if (v.Wants(2)) v.Give(2, total);
  if (v.Wants(3)) v.Give(3, v.Op("Neg", {v.Mul(total, slope)}));
  if (v.Wants(4)) {
    v.Give(4, v.Mul(v.Mul(along, v.Mul(slope, inverse)), v.Number(-0.5)));
  }
}

}  // namespace sparsefuse

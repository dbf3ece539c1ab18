// Reductions (declared in rules_shape.h). Axes come as an attribute or as an input, by opset.

#include <vector>

#include "passes/autodiff/rules_shape.h"

namespace sparsefuse {
namespace {

// The axes, or null where all are reduced.
Value* ReducedAxes(Vjp& v) {
  const std::vector<int64_t> attribute = v.node().GetInts("axes", {});
  if (!attribute.empty()) return v.Ints(attribute);
  const Tensor* constant = v.node().constant_input(1);
  return constant && constant->size() == 0 ? nullptr : v.x(1);
}

// True where nothing is reduced at all.
bool IsNoop(Vjp& v) { return v.node().GetInt("noop_with_empty_axes", 0) != 0 && !ReducedAxes(v); }

// g, shaped like the output, with the reduced axes back as axes of length 1 (a scalar stays one).
Value* WithAxes(Vjp& v, Value* g) {
  Value* axes = ReducedAxes(v);
  if (v.node().GetInt("keepdims", 1) != 0 || !axes) return g;
  return v.Op("Unsqueeze", {g, axes});
}

Value* Spread(Vjp& v, Value* g) { return v.Op("Expand", {g, v.Shape(v.x())}); }

}  // namespace

void GradReduceSum(Vjp& v) { v.Give(0, IsNoop(v) ? v.dy() : Spread(v, WithAxes(v, v.dy()))); }

void GradReduceMean(Vjp& v) {
  if (IsNoop(v)) return v.Give(0, v.dy());
  Value* count = v.Op("Div", {v.Op("Size", {v.x()}), v.Op("Size", {v.y()})});
  Value* share = v.Div(v.dy(), v.Cast(count, v.dtype(v.x())));
  v.Give(0, Spread(v, WithAxes(v, share)));
}

// Shared evenly among the elements that are equal to the result.
void GradReduceExtremum(Vjp& v) {
  if (IsNoop(v)) return v.Give(0, v.dy());
  Value* hits = v.Cast(v.Op("Equal", {v.x(), WithAxes(v, v.y())}), v.dtype(v.x()));
  Value* axes = ReducedAxes(v);
  std::vector<Value*> inputs = {hits};
  if (axes) inputs.push_back(axes);
  Value* count = v.Op("ReduceSum", std::move(inputs), AttributeList("keepdims", int64_t{1}));
  v.Give(0, v.Mul(hits, v.Div(WithAxes(v, v.dy()), count)));
}

// x/‖x‖
void GradReduceL2(Vjp& v) {
  if (IsNoop(v)) return v.Give(0, v.Mul(v.dy(), v.Op("Sign", {v.x()})));
  v.Give(0, v.Mul(v.x(), WithAxes(v, v.Div(v.dy(), v.y()))));
}

void GradReduceSumSquare(Vjp& v) {
  v.Give(0, v.Mul(v.Mul(v.x(), v.Number(2)), WithAxes(v, v.dy())));
}

// softmax(x) = e^(x − y)
void GradReduceLogSumExp(Vjp& v) {
  if (IsNoop(v)) return v.Give(0, v.dy());
  Value* softmax = v.Op("Exp", {v.Sub(v.x(), WithAxes(v, v.y()))});
  v.Give(0, v.Mul(softmax, WithAxes(v, v.dy())));
}

}  // namespace sparsefuse

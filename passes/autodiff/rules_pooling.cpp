// Pooling (declared in rules_convolution.h).

#include <string>
#include <utility>
#include <vector>

#include "passes/autodiff/rules_convolution.h"

namespace sparsefuse {
namespace {

using Numbers = std::vector<int64_t>;

// [1, 1, kernel] ones.
Value* OnesKernel(Vjp& v, const Window& window) {
  Numbers shape = {1, 1};
  shape.insert(shape.end(), window.kernel.begin(), window.kernel.end());
  return v.Ones(std::move(shape), v.x());
}

// By how many elements each window's sum was divided: a number, or [1, 1, positions].
Value* WindowCounts(Vjp& v, const Window& window) {
  const bool padding_counts = v.node().GetInt("count_include_pad", 0) != 0;
  const bool ceil = v.node().GetInt("ceil_mode", 0) != 0;
  const bool padded =
      !window.fixed_pads || *window.fixed_pads != Numbers(window.fixed_pads->size(), 0);
  if (!ceil && (padding_counts || !padded)) {
    double count = 1;
    for (const int64_t length : window.kernel) count *= static_cast<double>(length);
    return v.Number(count);
  }
  // A sum over ones, with padding of ones or zeros; windows beyond it (ceil_mode) find zeros.
  Value *none = v.Ints({0, 0}), *positions = v.Shape(v.y(), 2, v.kToLast);
  Value* ones = v.Filled(1, v.Concat({v.Ints({1, 1}), v.Shape(v.x(), 2, v.kToLast)}), v.x());
  Value* pads = v.Concat({none, window.before, none, window.after});
  ones = v.Op("Pad", {ones, pads, v.Number(padding_counts ? 1 : 0)});
  Numbers beyond(2 * (2 + window.axes()), 0), axes;
  for (size_t i = 0; i < window.axes(); ++i) {
    beyond[4 + window.axes() + i] = window.strides[i] - 1;
    axes.push_back(static_cast<int64_t>(2 + i));
  }
  ones = v.Op("Pad", {ones, v.Ints(std::move(beyond)), v.Number(0)});
  Value* counts = v.Op("Conv", {ones, OnesKernel(v, window)},
                       AttributeList("strides", window.strides, "dilations", window.dilations));
  return v.Op("Slice", {counts, v.Ints(Numbers(window.axes(), 0)), positions, v.Ints(axes)});
}

Numbers SpatialAxes(Vjp& v) {
  Numbers axes;
  for (int64_t axis = 2; axis < v.NeedRank(v.x()); ++axis) axes.push_back(axis);
  return axes;
}

}  // namespace

// dy/count spread over its window, each channel a sample of its own.
void GradAveragePool(Vjp& v) {
  const Window window = ReadWindow(v, v.node().GetInts("kernel_shape", {}), v.x(), v.y());
  Value* share = v.Div(v.dy(), WindowCounts(v, window));
  Value* single = v.Concat({v.Ints({-1, 1}), v.Shape(v.y(), 2, v.kToLast)});
  Value* g =
      SpreadWindows(v, window, v.Op("Reshape", {share, single}), OnesKernel(v, window), 1, v.x());
  v.Give(0, v.ReshapeLike(g, v.x()));
}

// The node is asked for its second output, which element each maximum is.
void GradMaxPool(Vjp& v) {
  v.NeedOpset(kScatterAddOpset);
  if (v.node().GetInt("storage_order", 0) != 0) {
    throw NoGradient{"only storage_order 0 has a gradient"};
  }
  Value* chosen = v.y(1);
  if (!chosen) {
    Graph& graph = v.graph();
    chosen = graph
                 .AddNode({.op = "MaxPool",
                           .inputs = {v.x()},
                           .outputs = {graph.FreshName("m"), graph.FreshName("chosen")},
                           .attributes = v.PlainAttributes()})
                 ->output(1);
  }
  Value* zeros = v.Filled(0, v.Count(v.x()), v.x());
  Value* flat = v.Ints({-1});
  Value* sum = v.Op("ScatterElements",
                    {zeros, v.Op("Reshape", {chosen, flat}), v.Op("Reshape", {v.dy(), flat})},
                    AttributeList("axis", int64_t{0}, "reduction", std::string("add")));
  v.Give(0, v.ReshapeLike(sum, v.x()));
}

void GradGlobalAveragePool(Vjp& v) {
  Value* count = v.Cast(v.Count(v.x(), 2), v.dtype(v.x()));
  v.Give(0, v.Op("Expand", {v.Div(v.dy(), count), v.Shape(v.x())}));
}

// Shared evenly among equal maxima.
void GradGlobalMaxPool(Vjp& v) {
  Value* hits = v.Cast(v.Op("Equal", {v.x(), v.y()}), v.dtype(v.x()));
  v.Give(0, v.Mul(hits, v.Div(v.dy(), v.Sum(hits, SpatialAxes(v), true))));
}

}  // namespace sparsefuse

#include "passes/autodiff/rules_convolution.h"

#include <algorithm>
#include <string>
#include <utility>

namespace sparsefuse {
namespace {

using Numbers = std::vector<int64_t>;

// auto_pad SAME_*: the windows cover ⌈length/stride⌉ positions, the odd one goes to one side.
void PadSame(Vjp& v, Window& window, Value* larger, Value* smaller, bool upper) {
  const size_t n = window.axes();
  const auto from = v.fixed_shape(larger), to = v.fixed_shape(smaller);
  if (from && to) {
    Numbers pads(2 * n);
    for (size_t i = 0; i < n; ++i) {
      const int64_t covered =
          ((*to)[2 + i] - 1) * window.strides[i] + (window.kernel[i] - 1) * window.dilations[i] + 1;
      const int64_t total = std::max<int64_t>(covered - (*from)[2 + i], 0);
      pads[i] = upper ? total / 2 : total - total / 2;
      pads[n + i] = total - pads[i];
    }
    window.fixed_pads = pads;
    return;
  }
  Numbers reach(n);  // window's extent less the stride
  for (size_t i = 0; i < n; ++i) {
    reach[i] = (window.kernel[i] - 1) * window.dilations[i] + 1 - window.strides[i];
  }
  Value* covered =
      v.Add(v.Mul(v.Shape(smaller, 2, v.kToLast), v.Ints(window.strides)), v.Ints(reach));
  Value* missing = v.Sub(covered, v.Shape(larger, 2, v.kToLast));
  Value* total = v.Op("Max", {missing, v.Ints(Numbers(n, 0))});
  Value* half = v.Div(total, v.Ints(Numbers(n, 2)));
  Value* rest = v.Sub(total, half);
  window.before = upper ? half : rest;
  window.after = upper ? rest : half;
}

// ∂/∂kernel of a convolution of `larger` [N, g·c, …] that gives `smaller` [N, g·m, …] → [g·m, c,
// …]. A convolution again: channels of a group as samples, samples as channels, strides and
// dilations exchanged; what the longer stride reaches beyond the kernel is cut off.
Value* KernelGradient(Vjp& v, const Window& window, Value* larger, Value* larger_shape,
                      Value* smaller, int64_t group) {
  const auto n = static_cast<int64_t>(window.axes());
  const auto part = [&](Value* shape, int64_t first, int64_t end) {
    return v.Op("Slice", {shape, v.Ints({first}), v.Ints({end})});
  };
  if (!window.fixed_pads) {
    Value* none = v.Ints({0, 0});
    larger = v.Op("Pad", {larger, v.Concat({none, window.before, none, window.after})});
  }
  Value* samples = part(larger_shape, 0, 1);
  Value* groups = v.Ints({group});
  // [N, g, c, …] → [c, g, N, …] → [c, g·N, …]
  Value* spatial = part(v.Op("Shape", {larger}), 2, v.kToLast);
  Value* channels = v.Div(part(larger_shape, 1, 2), groups);
  Value* in = v.Op("Reshape", {larger, v.Concat({samples, groups, channels, spatial})});
  Numbers perm = {2, 1, 0};
  for (const int64_t axis : AxisRange(3, 3 + n)) perm.push_back(axis);
  in = v.Transpose(in, perm);
  in = v.Op("Reshape", {in, v.Concat({channels, v.Mul(groups, samples), spatial})});
  // [N, g·m, …] → [g·m, N, …]
  perm = {1, 0};
  for (const int64_t axis : AxisRange(2, 2 + n)) perm.push_back(axis);
  Value* out = v.Transpose(smaller, perm);

  Attributes attributes =
      AttributeList("strides", window.dilations, "dilations", window.strides, "group", group);
  if (window.fixed_pads) attributes.emplace_back("pads", *window.fixed_pads);
  Value* product = v.Op("Conv", {in, out}, std::move(attributes));  // [c, g·m, ≥ kernel]
  product = v.Op("Slice", {product, v.Ints(Numbers(window.axes(), 0)), v.Ints(window.kernel),
                           v.Ints(AxisRange(2, 2 + n))});
  return v.Transpose(product, perm);
}

// The sizes of a convolution's kernel.
Numbers KernelOf(Vjp& v) {
  Numbers kernel = v.node().GetInts("kernel_shape", {});
  if (kernel.empty()) {
    if (const auto shape = v.fixed_shape(v.x(1))) kernel.assign(shape->begin() + 2, shape->end());
  }
  return kernel;
}

Value* OverSamplesAndPositions(Vjp& v, Value* g, const Window& window) {
  Numbers axes = {0};
  for (const int64_t axis : AxisRange(2, 2 + static_cast<int64_t>(window.axes())))
    axes.push_back(axis);
  return v.Sum(g, std::move(axes), false);
}

}  // namespace

Window ReadWindow(Vjp& v, Numbers kernel, Value* larger, Value* smaller) {
  if (kernel.empty()) throw NoGradient{"the size of its window is unknown"};
  Window window;
  const size_t n = kernel.size();
  window.kernel = std::move(kernel);
  window.strides = v.node().GetInts("strides", Numbers(n, 1));
  window.dilations = v.node().GetInts("dilations", Numbers(n, 1));
  const std::string automatic = v.node().GetString("auto_pad", "NOTSET");
  if (automatic == "SAME_UPPER" || automatic == "SAME_LOWER") {
    PadSame(v, window, larger, smaller, automatic == "SAME_UPPER");
  } else {
    const bool valid = automatic == "VALID";
    window.fixed_pads = valid ? Numbers(2 * n, 0) : v.node().GetInts("pads", Numbers(2 * n, 0));
  }
  if (window.fixed_pads) {
    const auto middle = window.fixed_pads->begin() + static_cast<std::ptrdiff_t>(n);
    window.before = v.Ints(Numbers(window.fixed_pads->begin(), middle));
    window.after = v.Ints(Numbers(middle, window.fixed_pads->end()));
  }
  return window;
}

// Without padding ConvTranspose gives the padded input up to the last window; output_padding adds
// stride − 1 zeros, at least what no window reached; the slice takes the padding off.
Value* SpreadWindows(Vjp& v, const Window& window, Value* g, Value* kernel, int64_t group,
                     Value* larger) {
  Numbers beyond = window.strides;
  for (int64_t& number : beyond) --number;
  Value* padded = v.Op("ConvTranspose", {g, kernel},
                       AttributeList("strides", window.strides, "dilations", window.dilations,
                                     "group", group, "output_padding", beyond));
  Value* end = v.Add(window.before, v.Shape(larger, 2, v.kToLast));
  return v.Op("Slice", {padded, window.before, end,
                        v.Ints(AxisRange(2, 2 + static_cast<int64_t>(window.axes())))});
}

void GradConv(Vjp& v) {
  const Window window = ReadWindow(v, KernelOf(v), v.x(), v.y());
  const int64_t group = v.node().GetInt("group", 1);
  if (v.Wants(0)) v.Give(0, SpreadWindows(v, window, v.dy(), v.x(1), group, v.x()));
  if (v.Wants(1)) {
    v.Give(1, KernelGradient(v, window, v.x(), v.Shape(v.x()), v.dy(), group));
  }
  if (v.Wants(2)) v.Give(2, OverSamplesAndPositions(v, v.dy(), window));
}

// The adjoint of a convolution of y with the same kernel.
void GradConvTranspose(Vjp& v) {
  if (v.node().GetString("auto_pad", "NOTSET") != "NOTSET" || v.node().attribute("output_shape")) {
    throw NoGradient{"only its form with explicit padding has a gradient"};
  }
  const Window window = ReadWindow(v, KernelOf(v), v.y(), v.x());
  const int64_t group = v.node().GetInt("group", 1);
  if (v.Wants(0)) {
    Value* g = v.Op("Conv", {v.dy(), v.x(1)},
                    AttributeList("strides", window.strides, "dilations", window.dilations, "group",
                                  group, "pads", *window.fixed_pads));
    // An output_padding of a stride or more makes room for positions that x does not have.
    const auto n = static_cast<int64_t>(window.axes());
    v.Give(0, v.Op("Slice", {g, v.Ints(Numbers(window.axes(), 0)), v.Shape(v.x(), 2, v.kToLast),
                             v.Ints(AxisRange(2, 2 + n))}));
  }
  if (v.Wants(1)) {
    v.Give(1, KernelGradient(v, window, v.dy(), v.Shape(v.y()), v.x(), group));
  }
  if (v.Wants(2)) v.Give(2, OverSamplesAndPositions(v, v.dy(), window));
}

}  // namespace sparsefuse

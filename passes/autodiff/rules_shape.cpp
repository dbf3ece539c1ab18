#include "passes/autodiff/rules_shape.h"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

namespace sparsefuse {
namespace {

Value* ScatterAdd(Vjp& v, Value* into, Value* indices, Value* updates, int64_t axis) {
  v.NeedOpset(kScatterAddOpset);
  return v.Op("ScatterElements", {into, indices, updates},
              AttributeList("axis", axis, "reduction", std::string("add")));
}

// Every element's own number: int64 [shape of x].
Value* Numbered(Vjp& v, Value* x) {
  const auto scalar = [](int64_t number) { return Tensor::Scalar(number); };
  Value* count = v.Op("Squeeze", {v.Count(x)});
  Value* numbers = v.Op("Range", {v.Constant(scalar(0)), count, v.Constant(scalar(1))});
  return v.ReshapeLike(numbers, x);
}

// The node's copy with another input 0.
Value* SameOn(Vjp& v, Value* input) {
  std::vector<Value*> inputs = v.node().inputs();
  inputs[0] = input;
  return v.Op(v.node().op(), std::move(inputs), v.PlainAttributes(), v.node().domain());
}

// `sources` says for every element of y which one of x it is.
void GiveToSources(Vjp& v, Value* sources) {
  Value* zeros = v.Filled(0, v.Count(v.x()), v.x());
  Value* sum = ScatterAdd(v, zeros, v.Op("Reshape", {sources, v.Ints({-1})}),
                          v.Op("Reshape", {v.dy(), v.Ints({-1})}), 0);
  v.Give(0, v.ReshapeLike(sum, v.x()));
}

// Starts of a Slice with constant bounds and step 1, one an axis of x; nothing for other forms.
std::optional<std::vector<int64_t>> PlainStarts(Vjp& v) {
  const Node& node = v.node();
  const std::optional<int64_t> rank = v.rank(v.x());
  const Tensor* starts = node.constant_input(1);
  if (!rank || !starts || (v.x(3) && !node.constant_input(3))) return std::nullopt;
  if (v.x(4)) {
    if (!node.constant_input(4)) return std::nullopt;
    for (const int64_t step : node.constant_input(4)->ToInts()) {
      if (step != 1) return std::nullopt;
    }
  }
  std::vector<int64_t> result(static_cast<size_t>(*rank), 0);
  const std::vector<int64_t> numbers = starts->ToInts();
  const std::vector<int64_t> axes =
      v.x(3) ? node.constant_input(3)->ToInts() : std::vector<int64_t>();
  for (size_t i = 0; i < numbers.size(); ++i) {
    const int64_t axis = v.x(3) ? v.Axis(v.x(), axes[i]) : static_cast<int64_t>(i);
    result[static_cast<size_t>(axis)] = numbers[i];
  }
  return result;
}

}  // namespace

void GradReshape(Vjp& v) { v.Give(0, v.ReshapeLike(v.dy(), v.x())); }

void GradSqueeze(Vjp& v) {
  v.Give(0, v.x(1) ? v.Op("Unsqueeze", {v.dy(), v.x(1)}) : v.ReshapeLike(v.dy(), v.x()));
}

void GradUnsqueeze(Vjp& v) { v.Give(0, v.Op("Squeeze", {v.dy(), v.x(1)})); }

void GradTranspose(Vjp& v) {
  const std::vector<int64_t> perm = v.node().GetInts("perm", {});
  std::vector<int64_t> inverse(perm.size());
  for (size_t i = 0; i < perm.size(); ++i) {
    inverse[static_cast<size_t>(perm[i])] = static_cast<int64_t>(i);
  }
  // Without perm the axes are reversed, which undoes itself.
  v.Give(0, perm.empty() ? v.Op("Transpose", {v.dy()}) : v.Transpose(v.dy(), inverse));
}

void GradConcat(Vjp& v) {
  const int64_t axis = v.Axis(v.y(), v.node().GetInt("axis", 0));
  std::vector<Value*> lengths;
  std::vector<std::string> outputs;
  for (size_t i = 0; i < v.input_count(); ++i) {
    lengths.push_back(v.Shape(v.x(i), axis, axis + 1));
    outputs.push_back(v.graph().FreshName("split"));
  }
  Node* split = v.graph().AddNode({.op = "Split",
                                   .inputs = {v.dy(), v.Concat(std::move(lengths))},
                                   .outputs = std::move(outputs),
                                   .attributes = AttributeList("axis", axis)});
  for (size_t i = 0; i < v.input_count(); ++i) {
    if (v.Wants(i)) v.Give(i, split->output(i));
  }
}

void GradSplit(Vjp& v) {
  std::vector<Value*> parts;
  for (size_t i = 0; i < v.node().outputs().size(); ++i) {
    parts.push_back(v.dy(i) ? v.dy(i) : v.Filled(0, v.Shape(v.y(i)), v.x()));
  }
  v.Give(0, v.Op("Concat", std::move(parts), AttributeList("axis", v.node().GetInt("axis", 0))));
}

void GradExpand(Vjp& v) { v.GiveSummed(0, v.dy()); }

void GradTrilu(Vjp& v) { v.Give(0, SameOn(v, v.dy())); }

// Zeros around dy; strides, and bounds that are computed, go through element numbers.
void GradSlice(Vjp& v) {
  const auto starts = PlainStarts(v);
  if (!starts) return GiveToSources(v, SameOn(v, Numbered(v, v.x())));
  const auto from = v.fixed_shape(v.x()), to = v.fixed_shape(v.y());
  if (from && to) {
    std::vector<int64_t> before = *starts, after;
    for (size_t i = 0; i < before.size(); ++i) {
      if (before[i] < 0) before[i] = std::max<int64_t>(before[i] + (*from)[i], 0);
      after.push_back((*from)[i] - (*to)[i] - before[i]);
    }
    before.insert(before.end(), after.begin(), after.end());
    return v.Give(0, v.Op("Pad", {v.dy(), v.Ints(std::move(before)), v.Number(0)}));
  }
  Value* before = v.Ints(*starts);
  if (std::any_of(starts->begin(), starts->end(), [](int64_t start) { return start < 0; })) {
    Value* wrapped = v.Op("Max", {v.Add(before, v.Shape(v.x())), v.Ints({0})});
    before = v.Op("Where", {v.Op("Less", {before, v.Ints({0})}), wrapped, before});
  }
  Value* after = v.Sub(v.Sub(v.Shape(v.x()), v.Op("Shape", {v.y()})), before);
  v.Give(0, v.Op("Pad", {v.dy(), v.Concat({before, after}), v.Number(0)}));
}

// Negative padding takes away what was added (and gives back zeros for what was cut off).
void GradPad(Vjp& v) {
  if (!v.Wants(0)) return;
  if (v.node().GetString("mode", "constant") != "constant") {
    return GiveToSources(v, SameOn(v, Numbered(v, v.x())));
  }
  const Tensor* pads = v.node().constant_input(1);
  Value* undone = nullptr;
  if (pads) {
    std::vector<int64_t> numbers = pads->ToInts();
    for (int64_t& number : numbers) number = -number;
    undone = v.Ints(std::move(numbers));
  } else {
    undone = v.Op("Neg", {v.x(1)});
  }
  std::vector<Value*> inputs = {v.dy(), undone, v.Number(0)};
  if (v.x(3)) inputs.push_back(v.x(3));
  v.Give(0, v.Op("Pad", std::move(inputs)));
}

// x as [outer, axis, inner], dy as [outer, indices, inner]: rows of dy added to those that the
// indices name, in a fixed order.
void GradGather(Vjp& v) {
  const int64_t axis = v.Axis(v.x(), v.node().GetInt("axis", 0));
  Value* outer = v.Count(v.x(), 0, axis);
  Value* inner = v.Count(v.x(), axis + 1);
  Value* length = v.Shape(v.x(), axis, axis + 1);
  Value* indices = v.Op("Reshape", {v.x(1), v.Ints({1, -1, 1})});
  Value* taken = v.Op("Reshape", {v.Op("Size", {v.x(1)}), v.Ints({1})});
  Value* shape = v.Concat({outer, taken, inner});
  Value* zeros = v.Filled(0, v.Concat({outer, length, inner}), v.x());
  Value* sum =
      ScatterAdd(v, zeros, v.Op("Expand", {indices, shape}), v.Op("Reshape", {v.dy(), shape}), 1);
  v.Give(0, v.ReshapeLike(sum, v.x()));
}

void GradGatherElements(Vjp& v) {
  v.Give(0, ScatterAdd(v, v.Filled(0, v.Shape(v.x()), v.x()), v.x(1), v.dy(),
                       v.node().GetInt("axis", 0)));
}

void GradMoved(Vjp& v) { GiveToSources(v, SameOn(v, Numbered(v, v.x()))); }

void GradResize(Vjp& v) {
  if (v.node().GetString("mode", "nearest") != "nearest") {
    throw NoGradient{"only its mode \"nearest\" has a gradient"};
  }
  if (!v.Wants(0)) return;
  // ONNX Runtime resizes int32, not int64.
  Value* sources = SameOn(v, v.Cast(Numbered(v, v.x()), DType::kInt32));
  GiveToSources(v, v.Cast(sources, DType::kInt64));
}

void GradTopK(Vjp& v) {
  v.Give(0, ScatterAdd(v, v.Filled(0, v.Shape(v.x()), v.x()), v.y(1), v.dy(),
                       v.node().GetInt("axis", -1)));
}

void GradCumSum(Vjp& v) {
  const int64_t reverse = v.node().GetInt("reverse", 0) == 0;
  v.Give(0, v.Op("CumSum", {v.dy(), v.x(1)},
                 AttributeList("reverse", reverse, "exclusive", v.node().GetInt("exclusive", 0))));
}

}  // namespace sparsefuse

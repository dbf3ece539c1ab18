#include "passes/lower/layout1.h"

#include <utility>

namespace sparsefuse {
namespace {

using Axes = std::vector<int64_t>;

Value* Byte(Builder& b, uint8_t value) { return b.Constant(Tensor::Scalar(value)); }

Value* Transpose(Builder& b, Value* x, Axes axes) {
  return b.Op("Transpose", {x}, AttributeList("perm", std::move(axes)));
}

// Two's complement of 4 bits: uint8 0…15 → int8 −8…7.
Value* SignNibble(Builder& b, Value* nibble) {
  Value* biased = b.Cast(b.Op("BitwiseXor", {nibble, Byte(b, 8)}), DType::kInt8);
  return b.Op("Sub", {biased, b.Constant(Tensor::Scalar<int8_t>(8))});
}

// uint8 [..., 16, 64] → [..., 32, 64]: low nibbles are outputs 0…15, high ones 16…31.
Value* Nibbles(Builder& b, Value* bytes) {
  Value* low = b.Op("BitwiseAnd", {bytes, Byte(b, 15)});
  Value* high = b.Op("BitShift", {bytes, Byte(b, 4)}, AttributeList("direction", "RIGHT"));
  return b.Op("Concat", {low, high}, AttributeList("axis", -2));
}

// float, in the shape of the codes.
Value* Scales(Builder& b, Value* codes, Value* base) {
  Value* exponent = b.Op("Div", {b.Cast(codes, DType::kFloat), b.Float(16)});
  return b.Op("Mul", {base, b.Op("Pow", {b.Float(2), exponent})});
}

Value* Filled(Builder& b, Value* shape, const Tensor& value) {
  return b.Op("ConstantOfShape", {shape}, AttributeList("value", value));
}

Value* CumSum(Builder& b, Value* x, int64_t exclusive = 0) {
  return b.Op("CumSum", {x, b.Constant(Tensor::Scalar<int64_t>(0))},
              AttributeList("exclusive", exclusive));
}

// Which panel each group belongs to: how many panels end at or before it. int64 [groups].
Value* GroupPanels(Builder& b, const Layout1& layout, Value* ends, Value* groups) {
  const Tensor zero = Tensor::Of<int64_t>({1}, std::vector<int64_t>{0});
  const Tensor one = Tensor::Of<int64_t>({1}, std::vector<int64_t>{1});
  // The last panels may end at `groups`, beyond the last group.
  Value* none = Filled(b, b.Op("Add", {groups, b.Ints({1})}), zero);
  Value* marks = b.Op("ScatterElements", {none, ends, Filled(b, layout.panels, one)},
                      AttributeList("axis", 0, "reduction", "add"));
  return b.Op("Slice", {CumSum(b, marks), b.Ints({0}), groups, b.Ints({0})});
}

// group_ptr and what follows from it, int64.
struct Groups {
  Value* count;   // [1]
  Value* bounds;  // [panels + 1]
  Value* ends;    // [panels]
  Value* panel;   // [groups]
};

Value* GroupCount(Builder& b, const Layout1& layout) {
  return b.Op("Div", {b.Op("Shape", {layout.quad}), b.Ints({kGroupQuads})});
}

Groups FindGroups(Builder& b, const Layout1& layout) {
  Groups groups;
  groups.bounds = b.Cast(layout.group_ptr, DType::kInt64);
  groups.count = GroupCount(b, layout);
  groups.ends =
      b.Op("Slice", {groups.bounds, b.Ints({1}), b.Op("Add", {layout.panels, b.Ints({1})})});
  groups.panel = GroupPanels(b, layout, groups.ends, groups.count);
  return groups;
}

// [groups, 32, 64] → [K, N]: every stored block of 4 inputs × 32 outputs goes to its place, those
// of padding to an extra quad that is cut off.
Value* ScatterBlocks(Builder& b, const Layout1& layout, const Groups& groups, Value* weights,
                     const Tensor& zero) {
  constexpr int64_t kBlockWeights = kPanelOutputs * 4;
  Value* quads = b.Op("Add", {DivideUp(b, layout.inputs, b.Ints({4})), b.Ints({1})});
  Value* quad = b.Op("Reshape", {b.Cast(layout.quad, DType::kInt64), b.Ints({-1, kGroupQuads})});
  Value* first = b.Op("Mul", {groups.panel, quads});
  Value* place = b.Op("Add", {b.Op("Reshape", {first, b.Ints({-1, 1})}), quad});
  Value* by_quad = Transpose(
      b, b.Op("Reshape", {weights, b.Ints({-1, kPanelOutputs, kGroupQuads, 4})}), {0, 2, 1, 3});
  Value* nothing =
      Filled(b, Concat(b, {b.Op("Mul", {layout.panels, quads}), b.Ints({kBlockWeights})}), zero);
  Value* all = b.Op("ScatterND", {nothing, b.Op("Reshape", {place, b.Ints({-1, 1})}),
                                  b.Op("Reshape", {by_quad, b.Ints({-1, kBlockWeights})})});
  Value* panels =
      b.Op("Reshape", {all, Concat(b, {layout.panels, quads, b.Ints({kPanelOutputs, 4})})});
  Value* padded =
      b.Op("Reshape",
           {Transpose(b, panels, {1, 3, 0, 2}),
            Concat(b, {b.Ints({-1}), b.Op("Mul", {layout.panels, b.Ints({kPanelOutputs})})})});
  return b.Op("Slice", {padded, b.Ints({0, 0}), Concat(b, {layout.inputs, layout.outputs})});
}

}  // namespace

Value* DivideUp(Builder& b, Value* number, Value* divisor) {
  Value* most = b.Op("Sub", {divisor, b.Ints({1})});
  return b.Op("Div", {b.Op("Add", {number, most}), divisor});
}

Value* Concat(Builder& b, std::vector<Value*> parts) {
  return b.Op("Concat", std::move(parts), AttributeList("axis", 0));
}

Value* DecodeWeights(Builder& b, Encoding encoding, Value* stored) {
  if (encoding == Encoding::kInt8) return stored;
  if (encoding == Encoding::kInt4) {
    return SignNibble(b, Nibbles(b, b.Op("Reshape", {stored, b.Ints({-1, 16, kGroupInputs})})));
  }
  Value* planes = Nibbles(b, b.Op("Reshape", {stored, b.Ints({2, -1, 16, kGroupInputs})}));
  const auto plane = [&](int64_t i) {
    return b.Op("Gather", {planes, b.Constant(Tensor::Scalar(i))}, AttributeList("axis", 0));
  };
  Value *high = plane(0), *low = plane(1);
  if (encoding == Encoding::kNested1) {
    Value* shifted = b.Op("BitShift", {high, Byte(b, 4)}, AttributeList("direction", "LEFT"));
    return b.Cast(b.Op("BitwiseOr", {shifted, low}), DType::kInt8);
  }
  Value* four = b.Constant(Tensor::Scalar<int8_t>(4));
  return b.Op("Add", {b.Op("Mul", {SignNibble(b, high), four}), SignNibble(b, low)});
}

Layout1 OneOutputUnless(Builder& b, const Layout1& layout, Value* condition) {
  Layout1 part = layout;
  Value *zero = b.Ints({0}), *one = b.Ints({1});
  part.outputs = b.Op("Max", {b.Op("Mul", {layout.outputs, condition}), one});
  part.panels = DivideUp(b, part.outputs, b.Ints({kPanelOutputs}));
  Value* groups = nullptr;
  if (layout.sparse()) {
    groups = b.Op("Mul", {GroupCount(b, layout), condition});
    part.quad = b.Op("Slice", {layout.quad, zero, b.Op("Mul", {groups, b.Ints({kGroupQuads})})});
    Value* bounds = b.Op("Mul", {layout.group_ptr, b.Cast(condition, DType::kInt32)});
    part.group_ptr = b.Op("Slice", {bounds, zero, b.Op("Add", {part.panels, one})});
  } else {
    groups = b.Op("Mul", {part.panels, DivideUp(b, layout.inputs, b.Ints({kGroupInputs}))});
  }
  part.weights = b.Op("Slice", {layout.weights, zero, groups, zero});
  return part;
}

Value* DenseRows(Builder& b, const Layout1& layout) {
  Value* groups =
      b.Op("Reshape",
           {layout.weights, Concat(b, {layout.panels, b.Ints({-1, kPanelOutputs, kGroupInputs})})});
  Value* by_output = Transpose(b, groups, {0, 2, 1, 3});
  Value* padded =
      b.Op("Reshape", {by_output, Concat(b, {b.Op("Mul", {layout.panels, b.Ints({kPanelOutputs})}),
                                             b.Ints({-1})})});
  return b.Op("Slice", {padded, b.Ints({0, 0}), Concat(b, {layout.outputs, layout.inputs})});
}

Value* PanelScales(Builder& b, const Layout1& layout) {
  Value* scales = b.Op("Reshape", {Scales(b, layout.scale_code, layout.scale_base), b.Ints({-1})});
  return b.Op("Slice", {scales, b.Ints({0}), layout.outputs});
}

Value* DenseScales(Builder& b, const Layout1& layout, Value* rows) {
  Value* codes = b.Op(
      "Slice", {layout.scale_code, b.Ints({0}), b.Op("Mul", {layout.panels, rows}), b.Ints({0})});
  Value* panels = b.Op("Reshape", {Scales(b, codes, layout.scale_base),
                                   Concat(b, {layout.panels, rows, b.Ints({kPanelOutputs})})});
  Value* padded =
      b.Op("Reshape", {Transpose(b, panels, {1, 0, 2}), Concat(b, {rows, b.Ints({1, -1})})});
  return b.Op("Slice", {padded, b.Ints({0}), layout.outputs, b.Ints({2})});
}

Value* SparseMatrix(Builder& b, const Layout1& layout) {
  const Groups groups = FindGroups(b, layout);
  return ScatterBlocks(b, layout, groups, layout.weights,
                       Tensor::Of<int8_t>({1}, std::vector<int8_t>{0}));
}

Value* ScaledSparseMatrix(Builder& b, const Layout1& layout, Value* scale_groups) {
  const Groups groups = FindGroups(b, layout);
  // Scale row of a group: those of the panels before it, then its place in the panel.
  Value* starts = b.Op("Slice", {groups.bounds, b.Ints({0}), layout.panels});
  Value* panel_groups = b.Op("Sub", {groups.ends, starts});
  Value* rows = DivideUp(b, panel_groups, scale_groups);
  Value* first = b.Op("Gather", {CumSum(b, rows, 1), groups.panel});
  Value* number =
      CumSum(b, Filled(b, groups.count, Tensor::Of<int64_t>({1}, std::vector<int64_t>{1})), 1);
  Value* place = b.Op("Sub", {number, b.Op("Gather", {starts, groups.panel})});
  Value* row = b.Op("Add", {first, b.Op("Div", {place, scale_groups})});
  Value* scale =
      b.Op("Reshape", {b.Op("Gather", {Scales(b, layout.scale_code, layout.scale_base), row}),
                       b.Ints({-1, kPanelOutputs, 1})});
  Value* weights = b.Cast(
      b.Op("Reshape", {layout.weights, b.Ints({-1, kPanelOutputs, kGroupInputs})}), DType::kFloat);
  return ScatterBlocks(b, layout, groups, b.Op("Mul", {weights, scale}),
                       Tensor::Of<float>({1}, std::vector<float>{0}));
}

}  // namespace sparsefuse

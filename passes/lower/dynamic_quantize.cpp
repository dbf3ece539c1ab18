#include "passes/lower/dynamic_quantize.h"

namespace sparsefuse {
namespace {

constexpr float kSmallestScale = 0x1p-126f;  // 2⁻¹²⁶, the smallest normal float

}  // namespace

ScaledRows ScaleRows(Builder& b, Value* x) {
  Value* last = b.Ints({-1});
  Value* largest = b.Op("ReduceMax", {b.Op("Abs", {x}), last}, AttributeList("keepdims", 1));
  Value* floor = b.Op("Max", {b.Op("Div", {largest, b.Float(127)}), b.Float(kSmallestScale)});
  Value* scaled = b.Op("Div", {x, floor});
  // ReduceMax of ONNX Runtime ignores NaN, a sum does not: 0·Σ is NaN where the row holds NaN or
  // Inf.
  Value* sum = b.Op("ReduceSum", {scaled, last}, AttributeList("keepdims", 1));
  Value* nan = b.Op("Mul", {sum, b.Float(0)});
  // Reductions of ONNX Runtime keep the axis' length when there are no rows; Slice makes it 1
  // again.
  return {scaled, b.Op("Slice", {b.Op("Add", {nan, floor}), b.Ints({0}), b.Ints({1}), last})};
}

Value* RowCodes(Builder& b, Value* scaled) {
  // Rounds half to even, adds 128, saturates, casts: one operator instead of four.
  return b.Op("QuantizeLinear", {scaled, b.Float(1), b.Constant(Tensor::Scalar<uint8_t>(128))});
}

Value* IntegerProduct(Builder& b, Value* codes, Value* weight) {
  Value* zero_point = b.Constant(Tensor::Scalar<uint8_t>(128));
  return b.Cast(b.Op("MatMulInteger", {codes, weight, zero_point}), DType::kFloat);
}

}  // namespace sparsefuse

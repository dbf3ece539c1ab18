#include "passes/lower/quantized_linear.h"

#include <algorithm>
#include <string>
#include <utility>

#include "kernels/linear/pack.h"

namespace sparsefuse {
namespace {

constexpr std::string_view kQuantizedLinear8 = "QuantizedLinear8";
constexpr float kSmallestScale = 0x1p-126f;  // 2⁻¹²⁶, the smallest normal float

Attributes Attribute1(std::string name, Attribute::Data data) {
  Attributes attributes;
  attributes.emplace_back(std::move(name), std::move(data));
  return attributes;
}

Value* Cast(Builder& b, Value* x, DType type) {
  return b.Op("Cast", {x}, Attribute1("to", static_cast<int64_t>(type)));
}

// Per row: unsigned codes around 128, and the row's scale. A row of zeros or denormals has the
// smallest scale; a row with NaN or Inf has scale NaN.
struct QuantizedRows {
  Value* codes;  // uint8, X's shape
  Value* scale;  // float [..., 1]
};

QuantizedRows QuantizeRows(Builder& b, Value* x) {
  const auto keep = [] { return Attribute1("keepdims", int64_t{1}); };
  Value* last = b.Ints({-1});
  Value* largest = b.Op("ReduceMax", {b.Op("Abs", {x}), last}, keep());
  Value* floor = b.Op("Max", {b.Op("Div", {largest, b.Float(127)}), b.Float(kSmallestScale)});
  Value* scaled = b.Op("Div", {x, floor});  // |scaled| ≤ 127
  // Rounds half to even, adds 128, saturates, casts: one operator instead of four.
  Value* codes =
      b.Op("QuantizeLinear", {scaled, b.Float(1), b.Constant(Tensor::Scalar<uint8_t>(128))});
  // ReduceMax of ONNX Runtime ignores NaN, a sum does not: 0·Σ is NaN where the row holds NaN or
  // Inf.
  Value* nan = b.Op("Mul", {b.Op("ReduceSum", {scaled, last}, keep()), b.Float(0)});
  // Reductions of ONNX Runtime keep the axis' length when there are no rows; Slice makes it 1
  // again.
  Value* scale = b.Op("Slice", {b.Op("Add", {nan, floor}), b.Ints({0}), b.Ints({1}), last});
  return {codes, scale};
}

// y = (Σ q·w)·scale·s + bias, in this order. The product is never multiplied by the result of
// another Mul, nor scaled by rows first: ONNX Runtime 1.31 would fuse that into its
// MatMulIntegerToFloat, which adds the bias before the row scale. weight: int8 [K, N]; scales: [N].
Value* IntegerProduct(Builder& b, const QuantizedRows& rows, Value* weight, Value* scales) {
  Value* sum =
      b.Op("MatMulInteger", {rows.codes, weight, b.Constant(Tensor::Scalar<uint8_t>(128))});
  return b.Op("Mul", {b.Op("Mul", {Cast(b, sum, DType::kFloat), scales}), rows.scale});
}

// int8 [K·N in layout 1] → int8 [N, K]. `panels`, `outputs`, `inputs`: int64 [1].
Value* UnpackRows(Builder& b, Value* packed, Value* panels, Value* outputs, Value* inputs) {
  const auto concat = [&b](std::vector<Value*> parts) {
    return b.Op("Concat", std::move(parts), Attribute1("axis", int64_t{0}));
  };
  Value* groups = b.Op("Reshape", {packed, concat({panels, b.Ints({-1, 32, 64})})});
  Value* by_output =
      b.Op("Transpose", {groups}, Attribute1("perm", std::vector<int64_t>{0, 2, 1, 3}));
  Value* padded =
      b.Op("Reshape",
           {by_output, concat({b.Op("Mul", {panels, b.Ints({kPanelOutputs})}), b.Ints({-1})})});
  return b.Op("Slice", {padded, b.Ints({0, 0}), concat({outputs, inputs}), b.Ints({0, 1})});
}

// uint8 [panels, 32] → float [N].
Value* UnpackScales(Builder& b, Value* codes, Value* base, Value* outputs) {
  Value* exponent = b.Op("Div", {Cast(b, codes, DType::kFloat), b.Float(16)});
  Value* scales = b.Op("Mul", {base, b.Op("Pow", {b.Float(2), exponent})});
  return b.Op("Slice",
              {b.Op("Reshape", {scales, b.Ints({-1})}), b.Ints({0}), outputs, b.Ints({0})});
}

void AddFunction(Model& model) {
  if (model.FindFunction(kOperatorDomain, kQuantizedLinear8)) return;
  Function* function =
      model.AddFunction(std::string(kOperatorDomain), std::string(kQuantizedLinear8),
                        {"X", "weight", "scale_code", "bias", "smooth"},
                        {"K", "N", "scale_groups", "scale_base", "layout"}, {{"", model.opset()}});
  Graph& body = *function->body;
  Builder b(body, Builder::Constants::kNodes);
  const auto input = [&body](std::string_view name) { return body.FindValue(name); };
  const auto length = [&b](std::string_view attribute) {
    return b.Op("Reshape", {b.IntAttribute(attribute), b.Ints({1})});
  };
  Attributes first_axis = Attribute1("start", int64_t{0});
  first_axis.emplace_back("end", int64_t{1});

  // Constant at run time, folded once at load.
  Value* outputs = length("N");
  Value* panels = b.Op("Shape", {input("scale_code")}, std::move(first_axis));
  Value* rows = UnpackRows(b, input("weight"), panels, outputs, length("K"));
  Value* weight = b.Op("Transpose", {rows}, Attribute1("perm", std::vector<int64_t>{1, 0}));
  Value* scales = UnpackScales(b, input("scale_code"), b.FloatAttribute("scale_base"), outputs);

  Value* x = b.Op("Mul", {Cast(b, input("X"), DType::kFloat), input("smooth")});
  Value* y = b.Op("Add", {IntegerProduct(b, QuantizeRows(b, x), weight, scales), input("bias")});
  body.AddGraphOutput(b.Op("CastLike", {y, input("X")}));
  model.opset_imports[std::string(kOperatorDomain)] = kOperatorVersion;
}

Value* BiasConstant(Builder& b, const std::vector<float>& bias, int64_t outputs) {
  if (bias.empty()) {
    return b.Constant(
        Tensor::Of<float>({outputs}, std::vector<float>(static_cast<size_t>(outputs))));
  }
  return b.Constant(Tensor::Of<float>({outputs}, bias));
}

}  // namespace

std::vector<float> Scales(const QuantizedWeight& weight) {
  std::vector<float> scales;
  scales.reserve(weight.scale_codes.size());
  for (uint8_t code : weight.scale_codes) scales.push_back(DecodeScale(weight.scale_base, code));
  return scales;
}

StoredWeight StoreLayout1(Builder& builder, const QuantizedWeight& weight) {
  const int64_t panels = PanelCount(weight.outputs);
  const int64_t groups = panels * GroupsPerPanel(weight.inputs);
  std::vector<int8_t> packed(static_cast<size_t>(groups * GroupBytes(Encoding::kInt8)));
  PackWeights(Encoding::kInt8, {}, weight.codes, weight.inputs, weight.outputs,
              std::as_writable_bytes(std::span(packed)));
  std::vector<uint8_t> codes = weight.scale_codes;
  codes.resize(static_cast<size_t>(panels * kPanelOutputs), 0);
  return {builder.Constant(Tensor::Of<int8_t>({groups, 32, 16, 4}, packed)),
          builder.Constant(Tensor::Of<uint8_t>({panels, kPanelOutputs}, codes))};
}

void EmitQuantizedLinear8(Model& model, Builder& builder, Value* x, const StoredWeight& stored,
                          const QuantizedWeight& weight, const std::vector<float>& bias,
                          Value* output) {
  AddFunction(model);
  const std::vector<float> ones(static_cast<size_t>(weight.inputs), 1.0f);
  Attributes attributes;
  attributes.emplace_back("K", weight.inputs);
  attributes.emplace_back("N", weight.outputs);
  attributes.emplace_back("scale_groups", int64_t{0});
  attributes.emplace_back("scale_base", weight.scale_base);
  attributes.emplace_back("layout", int64_t{1});
  builder.OpAs(output, std::string(kQuantizedLinear8),
               {x, stored.packed, stored.scale_codes, BiasConstant(builder, bias, weight.outputs),
                builder.Constant(Tensor::Of<float>({weight.inputs}, ones))},
               std::move(attributes), std::string(kOperatorDomain));
}

void EmitStandardLinear8(Builder& builder, Value* x, Value* rows, const QuantizedWeight& weight,
                         const std::vector<float>& bias, Value* output) {
  Value* turned = nullptr;
  if (rows) {
    turned = builder.Op("Transpose", {rows}, Attribute1("perm", std::vector<int64_t>{1, 0}));
  } else {
    std::vector<int8_t> columns(weight.codes.size());
    for (int64_t n = 0; n < weight.outputs; ++n) {
      for (int64_t k = 0; k < weight.inputs; ++k) {
        columns[static_cast<size_t>(k * weight.outputs + n)] =
            weight.codes[static_cast<size_t>(n * weight.inputs + k)];
      }
    }
    turned = builder.Constant(Tensor::Of<int8_t>({weight.inputs, weight.outputs}, columns));
  }
  Value* scales = builder.Constant(Tensor::Of<float>({weight.outputs}, Scales(weight)));
  const QuantizedRows quantized = QuantizeRows(builder, x);
  Value* product = IntegerProduct(builder, quantized, turned, scales);
  builder.OpAs(output, "Add", {product, BiasConstant(builder, bias, weight.outputs)});
}

RowsAndScales UnpackLayout1(Builder& builder, const StoredWeight& stored,
                            const QuantizedWeight& weight) {
  Value* outputs = builder.Ints({weight.outputs});
  Value* panels = builder.Ints({PanelCount(weight.outputs)});
  return {UnpackRows(builder, stored.packed, panels, outputs, builder.Ints({weight.inputs})),
          UnpackScales(builder, stored.scale_codes, builder.Float(weight.scale_base), outputs)};
}

}  // namespace sparsefuse

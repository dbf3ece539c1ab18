#include "passes/lower/linear.h"

#include <array>
#include <cmath>
#include <span>
#include <string>
#include <utility>

#include "kernels/linear/gate.h"
#include "passes/lower/dynamic_quantize.h"
#include "passes/lower/layout1.h"

namespace sparsefuse {
namespace {

// `values`, or where there are none `count` times `otherwise`.
Value* VectorConstant(Builder& b, const std::vector<float>& values, int64_t count,
                      float otherwise) {
  if (!values.empty()) {
    return b.Constant(Tensor::Of<float>({static_cast<int64_t>(values.size())}, values));
  }
  return b.Constant(
      Tensor::Of<float>({count}, std::vector<float>(static_cast<size_t>(count), otherwise)));
}

Value* BiasConstant(Builder& b, const std::vector<float>& bias, int64_t outputs) {
  return VectorConstant(b, bias, outputs, 0);
}

void CheckConsistent(const QuantizedWeight& weight) {
  SF_CHECK(weight.inputs > 0 && weight.inputs <= kMaxInputs);
  SF_CHECK(weight.outputs > 0 && weight.outputs <= kMaxOutputs);
  SF_CHECK(static_cast<int64_t>(weight.codes.size()) == weight.inputs * weight.outputs);
  const int64_t panels = PanelCount(weight.outputs);
  if (weight.sparse()) {
    std::array<char, 128> wrong{};
    SF_CHECK(static_cast<int64_t>(weight.group_ptr.size()) == panels + 1);
    SF_CHECK(static_cast<int64_t>(weight.quad.size()) == weight.groups() * kGroupQuads);
    SF_CHECK(CheckBlocks(weight.blocks(), weight.inputs, weight.outputs, weight.groups(), wrong),
             "{}", wrong.data());
  }
  int64_t scale_rows = 0;
  for (int64_t p = 0; p < panels; ++p) {
    const auto i = static_cast<size_t>(p);
    const int64_t groups = weight.sparse() ? weight.group_ptr[i + 1] - weight.group_ptr[i]
                                           : GroupsPerPanel(weight.inputs);
    scale_rows +=
        weight.scale_groups == 0 ? 1 : (groups + weight.scale_groups - 1) / weight.scale_groups;
  }
  SF_CHECK(static_cast<int64_t>(weight.scale_codes.size()) == scale_rows * kPanelOutputs);
}

Tensor PackedTensor(const QuantizedWeight& weight) {
  const int64_t groups = weight.groups();
  std::vector<std::byte> packed(static_cast<size_t>(groups * GroupBytes(weight.encoding)));
  PackWeights(weight.encoding, weight.blocks(), weight.codes, weight.inputs, weight.outputs,
              packed);
  if (weight.encoding == Encoding::kInt8) {
    return Tensor::FromBytes(DType::kInt8, {groups, 32, 16, 4}, packed);
  }
  const int64_t plane = PlaneBytes(weight.encoding);
  const Dims dims = IsNested(weight.encoding) ? Dims{2, groups, plane} : Dims{groups, plane};
  return Tensor::FromBytes(DType::kUint8, dims, packed);
}

}  // namespace

BlockIndex QuantizedWeight::blocks() const {
  static constexpr uint16_t kNone = 0;  // an empty list may have no address
  if (!sparse()) return {};
  return {quad.empty() ? &kNone : quad.data(), group_ptr.data()};
}

int64_t QuantizedWeight::groups() const {
  return sparse() ? group_ptr.back() : PanelCount(outputs) * GroupsPerPanel(inputs);
}

std::vector<float> Scales(const QuantizedWeight& weight) {
  SF_CHECK(weight.scale_groups == 0);
  std::vector<float> scales(static_cast<size_t>(weight.outputs));
  for (size_t n = 0; n < scales.size(); ++n) {
    scales[n] = DecodeScale(weight.scale_base, weight.scale_codes[n]);
  }
  return scales;
}

StoredWeight StoreLayout1(Builder& builder, const QuantizedWeight& weight) {
  CheckConsistent(weight);
  const auto scale_rows = static_cast<int64_t>(weight.scale_codes.size()) / kPanelOutputs;
  StoredWeight stored;
  stored.packed = builder.Constant(PackedTensor(weight));
  stored.scale_codes =
      builder.Constant(Tensor::Of<uint8_t>({scale_rows, kPanelOutputs}, weight.scale_codes));
  if (weight.sparse()) {
    const auto quads = static_cast<int64_t>(weight.quad.size());
    const auto bounds = static_cast<int64_t>(weight.group_ptr.size());
    stored.quad = builder.Constant(Tensor::Of<uint16_t>({quads}, weight.quad));
    stored.group_ptr = builder.Constant(Tensor::Of<int32_t>({bounds}, weight.group_ptr));
  }
  return stored;
}

void EmitLinear(Model& model, Builder& builder, Value* x, const StoredWeight& stored,
                const QuantizedWeight& weight, const std::vector<float>& bias,
                Activation activation, Value* output) {
  const LinearOperator op{weight.encoding, weight.sparse(), activation};
  AddLinearFunction(model, op);
  std::vector<Value*> inputs = {x, stored.packed, stored.scale_codes,
                                BiasConstant(builder, bias, weight.outputs),
                                VectorConstant(builder, weight.smooth, weight.inputs, 1)};
  // Without a gate the estimate, 0, is never below the threshold, 0.
  if (IsNested(op.encoding)) inputs.push_back(VectorConstant(builder, weight.gate, kGateHeader, 0));
  if (op.sparse) inputs.insert(inputs.end(), {stored.quad, stored.group_ptr});
  builder.OpAs(output, OperatorName(op), std::move(inputs),
               AttributeList("K", weight.inputs, "N", weight.outputs, "scale_groups",
                             weight.scale_groups, "scale_base", weight.scale_base, "layout", 1),
               std::string(kOperatorDomain));
}

void SetZeroInputs(Node& node, double share) {
  node.SetAttribute("zero_inputs", static_cast<float>(std::floor(16 * share) / 16));
}

void EmitStandardLinear8(Builder& builder, Value* x, Value* rows, const QuantizedWeight& weight,
                         const std::vector<float>& bias, Value* output) {
  Value* turned = nullptr;
  if (rows) {
    turned = builder.Op("Transpose", {rows}, AttributeList("perm", std::vector<int64_t>{1, 0}));
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
  const ScaledRows scaled = ScaleRows(builder, x);
  Value* product = IntegerProduct(builder, RowCodes(builder, scaled.scaled), turned);
  // In this order: docs/decisions/001.
  product = builder.Op("Mul", {builder.Op("Mul", {product, scales}), scaled.scale});
  builder.OpAs(output, "Add", {product, BiasConstant(builder, bias, weight.outputs)});
}

RowsAndScales UnpackLayout1(Builder& builder, const StoredWeight& stored,
                            const QuantizedWeight& weight) {
  const Layout1 layout{.weights = stored.packed,
                       .scale_code = stored.scale_codes,
                       .scale_base = builder.Float(weight.scale_base),
                       .inputs = builder.Ints({weight.inputs}),
                       .outputs = builder.Ints({weight.outputs}),
                       .panels = builder.Ints({PanelCount(weight.outputs)})};
  return {DenseRows(builder, layout), PanelScales(builder, layout)};
}

}  // namespace sparsefuse

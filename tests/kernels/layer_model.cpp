#include "tests/kernels/layer_model.h"

namespace sparsefuse::test {
namespace {

using onnx::TensorProto;

template <typename T>
std::vector<T> Sized(std::vector<T> values, const std::vector<int64_t>& dims) {
  int64_t count = 1;
  for (int64_t dim : dims) count *= dim;
  values.resize(static_cast<size_t>(count));
  return values;
}

std::vector<int64_t> WeightDims(Encoding encoding, int64_t groups) {
  if (encoding == Encoding::kInt8) return {groups, 32, 16, 4};
  if (encoding == Encoding::kInt4) return {groups, 1024};
  return {2, groups, 1024};
}

}  // namespace

LayerParts::LayerParts(const LinearLayer& of, Activation activation)
    : weight_dims(WeightDims(of.shape.encoding, of.groups())),
      scale_dims{of.scale_rows(), 32},
      bias_dims{of.shape.outputs},
      smooth_dims{of.shape.inputs},
      gate_dims{static_cast<int64_t>(of.gate.empty() ? 4 : of.gate.size())},
      quad_dims{of.groups() * 16},
      group_ptr_dims{of.shape.panels() + 1},
      layer(of) {
  constexpr const char* kEncodings[] = {"8", "4", "Nested1", "Nested4"};
  op = std::string(of.shape.sparse ? "BlockSparseLinear" : "QuantizedLinear") +
       kEncodings[static_cast<size_t>(of.shape.encoding)] + ActivationName(activation);
}

NodeModel LayerParts::Model(TensorProto::DataType type) const {
  const LinearShape& shape = layer.shape;
  NodeModel model(op, "sparsefuse", type);
  model.Int("K", shape.inputs).Int("N", shape.outputs);
  model.Int("scale_groups", shape.scale_groups).Int("layout", 1);
  model.Float("scale_base", layer.scale_base);
  if (shape.zero_inputs > 0) model.Float("zero_inputs", shape.zero_inputs);
  model.Constant("weight",
                 shape.encoding == Encoding::kInt8 ? TensorProto::INT8 : TensorProto::UINT8,
                 weight_dims, Sized(layer.packed, weight_dims));
  model.Constant("scale_code", TensorProto::UINT8, scale_dims, Sized(layer.scale_code, scale_dims));
  model.Constant("bias", TensorProto::FLOAT, bias_dims, Sized(layer.bias, bias_dims));
  std::vector<float> smooth = layer.smooth;
  if (smooth.empty()) smooth.assign(static_cast<size_t>(shape.inputs), 1.0f);
  model.Constant("smooth", TensorProto::FLOAT, smooth_dims, Sized(smooth, smooth_dims));
  if (IsNested(shape.encoding)) {
    model.Constant("gate", TensorProto::FLOAT, gate_dims, Sized(layer.gate, gate_dims));
  }
  if (shape.sparse) {
    model.Constant("quad", TensorProto::UINT16, quad_dims, Sized(layer.quad, quad_dims));
    model.Constant("group_ptr", TensorProto::INT32, group_ptr_dims,
                   Sized(layer.group_ptr, group_ptr_dims));
  }
  return model;
}

}  // namespace sparsefuse::test

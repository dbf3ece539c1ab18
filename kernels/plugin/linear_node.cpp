#include "kernels/plugin/linear_node.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <span>

#include "kernels/linear/gate.h"
#include "kernels/plugin/ort_api.h"

namespace sparsefuse::plugin {
namespace {

constexpr int64_t kLayout = 1;

}  // namespace

LinearNode::LinearNode(const LinearOp& op) noexcept : op_(op) {
  shape_.encoding = op.variant.encoding;
  shape_.sparse = op.variant.sparse;
}

OrtStatus* LinearNode::Located(OrtStatus* status) const noexcept {
  if (!status) return nullptr;
  OrtStatus* located = Error(api(), api().GetErrorCode(status), "%s node \"%.100s\": %s",
                             op_.name.data(), name_.data(), api().GetErrorMessage(status));
  api().ReleaseStatus(status);
  return located;
}

OrtStatus* LinearNode::Read(const OrtKernelInfo& info) noexcept {
  size_t size = name_.size();
  if (OrtStatus* status = api().KernelInfo_GetNodeName(&info, name_.data(), &size)) {
    api().ReleaseStatus(status);  // longer than the buffer
    name_.back() = '\0';
  }
  SPARSEFUSE_RETURN_IF_ERROR(ReadInt(api(), info, "K", 1, kMaxInputs, shape_.inputs));
  SPARSEFUSE_RETURN_IF_ERROR(ReadInt(api(), info, "N", 1, kMaxOutputs, shape_.outputs));
  SPARSEFUSE_RETURN_IF_ERROR(
      ReadInt(api(), info, "scale_groups", 0, GroupsPerPanel(kMaxInputs), shape_.scale_groups));
  SPARSEFUSE_RETURN_IF_ERROR(ReadPositiveFloat(api(), info, "scale_base", scale_base_));
  SPARSEFUSE_RETURN_IF_ERROR(ReadOptionalShare(api(), info, "zero_inputs", shape_.zero_inputs));
  int64_t layout = 0;
  SPARSEFUSE_RETURN_IF_ERROR(ReadInt(api(), info, "layout", 1, INT64_MAX, layout));
  if (layout != kLayout) {
    return Error(
        api(), ORT_NOT_IMPLEMENTED,
        "weights are in layout %lld, this library reads layout %lld: a newer library is needed",
        static_cast<long long>(layout), static_cast<long long>(kLayout));
  }
  size_t inputs = 0;
  SPARSEFUSE_RETURN_IF_ERROR(api().KernelInfo_GetInputCount(&info, &inputs));
  if (inputs != InputCount(op_.variant)) {
    return Error(api(), ORT_INVALID_ARGUMENT, "has %zu inputs, needs %zu", inputs,
                 InputCount(op_.variant));
  }
  return nullptr;
}

OrtStatus* LinearNode::ReadConstants(const OrtKernelInfo& info, Values& values) const noexcept {
  for (size_t i = 1; i < InputCount(op_.variant); ++i) {
    const OrtValue*& value = values[KindOf(op_.variant, i)];
    int is_constant = 0;
    SPARSEFUSE_RETURN_IF_ERROR(
        api().KernelInfoGetConstantInput_tensor(&info, i, &is_constant, &value));
    if (!is_constant) value = nullptr;
  }
  return nullptr;
}

OrtStatus* LinearNode::ReadInputs(const OrtKernelContext& context, Values& values) const noexcept {
  for (size_t i = 1; i < InputCount(op_.variant); ++i) {
    SPARSEFUSE_RETURN_IF_ERROR(
        api().KernelContext_GetInput(&context, i, &values[KindOf(op_.variant, i)]));
  }
  return nullptr;
}

OrtStatus* LinearNode::Data(const OrtValue* value, const void** data) const noexcept {
  // The interface has no const form; nothing is written.
  void* bytes = nullptr;
  SPARSEFUSE_RETURN_IF_ERROR(api().GetTensorMutableData(const_cast<OrtValue*>(value), &bytes));
  *data = bytes;
  return nullptr;
}

// The lists of a sparse layer, checked.
OrtStatus* LinearNode::ReadBlocks(const Values& values, BlockIndex& blocks) const noexcept {
  TensorShape weight;
  SPARSEFUSE_RETURN_IF_ERROR(ReadShape(api(), values[kWeight], "weight", weight));
  const size_t axis = IsNested(shape_.encoding) ? 1 : 0;
  const int64_t groups = axis < weight.rank ? weight.dims[axis] : 0;
  const int64_t most = shape_.panels() * GroupsPerPanel(shape_.inputs);
  if (groups > most) {
    return Error(api(), ORT_INVALID_ARGUMENT,
                 "input weight has %lld groups, at most %lld make sense",
                 static_cast<long long>(groups), static_cast<long long>(most));
  }
  const int64_t quads = groups * kGroupQuads, ends = shape_.panels() + 1;
  SPARSEFUSE_RETURN_IF_ERROR(
      CheckTensor(api(), values[kQuad], "quad", ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT16, {&quads, 1}));
  SPARSEFUSE_RETURN_IF_ERROR(CheckTensor(api(), values[kGroupPtr], "group_ptr",
                                         ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32, {&ends, 1}));
  const void *quad = nullptr, *group_ptr = nullptr;
  SPARSEFUSE_RETURN_IF_ERROR(Data(values[kQuad], &quad));
  SPARSEFUSE_RETURN_IF_ERROR(Data(values[kGroupPtr], &group_ptr));
  static constexpr uint16_t kNone = 0;  // an empty tensor may have no address
  blocks = {quad ? static_cast<const uint16_t*>(quad) : &kNone,
            static_cast<const int32_t*>(group_ptr)};
  std::array<char, 128> wrong;
  if (!CheckBlocks(blocks, shape_.inputs, shape_.outputs, groups, wrong)) {
    return Error(api(), ORT_INVALID_ARGUMENT, "blocks: %s", wrong.data());
  }
  return nullptr;
}

// Types and dimensions. `weights` has its blocks already.
OrtStatus* LinearNode::CheckConstants(const Values& values,
                                      const LinearWeights& weights) const noexcept {
  const int64_t groups = weights.GroupCount();
  const std::array int8 = {groups, kPanelOutputs, kGroupInputs / 4, int64_t{4}};
  const std::array int4 = {groups, PlaneBytes(Encoding::kInt4)};
  const std::array nested = {int64_t{2}, groups, PlaneBytes(Encoding::kNested1)};
  const bool bytes = shape_.encoding == Encoding::kInt8;
  const std::span<const int64_t> weight = bytes ? std::span<const int64_t>(int8)
                                          : IsNested(shape_.encoding)
                                              ? std::span<const int64_t>(nested)
                                              : std::span<const int64_t>(int4);
  const std::array scale = {ScaleRowCount(weights), kPanelOutputs};
  const struct {
    Input input;
    ONNXTensorElementDataType type;
    std::span<const int64_t> dims;
  } expected[] = {
      {kWeight, bytes ? ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8 : ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8,
       weight},
      {kScaleCode, ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8, scale},
      {kBias, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, {&shape_.outputs, 1}},
      {kSmooth, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, {&shape_.inputs, 1}},
  };
  for (const auto& e : expected) {
    SPARSEFUSE_RETURN_IF_ERROR(
        CheckTensor(api(), values[e.input], kInputNames[e.input], e.type, e.dims));
  }
  return IsNested(shape_.encoding) ? CheckGate(values[kGate]) : nullptr;
}

OrtStatus* LinearNode::CheckGate(const OrtValue* value) const noexcept {
  TensorShape gate;
  SPARSEFUSE_RETURN_IF_ERROR(ReadShape(api(), value, "gate", gate));
  const void* header = nullptr;
  if (gate.type != ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT || gate.rank != 1 ||
      gate.dims[0] < kGateHeader) {
    return Error(api(), ORT_INVALID_ARGUMENT, "input gate must be float [%lld or more]",
                 static_cast<long long>(kGateHeader));
  }
  SPARSEFUSE_RETURN_IF_ERROR(Data(value, &header));
  const float rows = static_cast<const float*>(header)[3];
  if (!(rows >= 0 && rows <= kMaxSketchRows && rows == std::floor(rows))) {
    return Error(api(), ORT_INVALID_ARGUMENT,
                 "input gate says %g sketch rows, 0 to %lld are possible",
                 static_cast<double>(rows), static_cast<long long>(kMaxSketchRows));
  }
  const int64_t length = kGateHeader + static_cast<int64_t>(rows) * shape_.inputs;
  return CheckTensor(api(), value, "gate", ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, {&length, 1});
}

OrtStatus* LinearNode::ReadWeights(const Values& values, LinearWeights& weights) const noexcept {
  weights = {.shape = shape_, .scale_base = scale_base_};
  if (shape_.sparse) SPARSEFUSE_RETURN_IF_ERROR(ReadBlocks(values, weights.blocks));
  SPARSEFUSE_RETURN_IF_ERROR(CheckConstants(values, weights));
  std::array<const void*, kInputKinds> data{};
  for (size_t i = kWeight; i <= kGate; ++i) {
    if (values[i]) SPARSEFUSE_RETURN_IF_ERROR(Data(values[i], &data[i]));
  }
  weights.weight = static_cast<const std::byte*>(data[kWeight]);
  weights.scale_code = static_cast<const uint8_t*>(data[kScaleCode]);
  weights.bias = static_cast<const float*>(data[kBias]);
  weights.smooth = static_cast<const float*>(data[kSmooth]);
  weights.gate = static_cast<const float*>(data[kGate]);
  if (std::all_of(weights.smooth, weights.smooth + shape_.inputs,
                  [](float v) { return v == 1.0f; })) {
    weights.smooth = nullptr;
  }
  return nullptr;
}

OrtStatus* LinearNode::OpenRun(OrtKernelContext& context, RunTensors& run) const noexcept {
  const OrtValue* x = nullptr;
  SPARSEFUSE_RETURN_IF_ERROR(api().KernelContext_GetInput(&context, kX, &x));
  TensorShape shape;
  SPARSEFUSE_RETURN_IF_ERROR(ReadShape(api(), x, kInputNames[kX], shape));
  if (shape.type != op_.type) {
    return Error(api(), ORT_INVALID_ARGUMENT, "input X has element type %d, expected %d",
                 static_cast<int>(shape.type), static_cast<int>(op_.type));
  }
  if (shape.rank == 0) return Error(api(), ORT_INVALID_ARGUMENT, "input X is a scalar");
  int64_t& last = shape.dims[shape.rank - 1];
  if (last != shape_.inputs) {
    return Error(api(), ORT_INVALID_ARGUMENT, "input X has last dimension %lld, expected K = %lld",
                 static_cast<long long>(last), static_cast<long long>(shape_.inputs));
  }
  last = shape_.outputs;
  OrtValue* y = nullptr;
  SPARSEFUSE_RETURN_IF_ERROR(
      api().KernelContext_GetOutput(&context, 0, shape.dims.data(), shape.rank, &y));
  if (!y) return Error(api(), ORT_INVALID_ARGUMENT, "has no output");
  run = {};
  const auto leading = std::span(shape.dims).first(shape.rank - 1);
  if (std::find(leading.begin(), leading.end(), 0) != leading.end()) return nullptr;
  run.rows = 1;  // cannot overflow: X holds rows · K elements
  for (int64_t dim : leading) run.rows *= dim;
  SPARSEFUSE_RETURN_IF_ERROR(Data(x, &run.x));
  return api().GetTensorMutableData(y, &run.y);
}

OrtStatus* ReadGateMode(const OrtApi& api, GateMode& mode) noexcept {
  const char* name = std::getenv("SPARSEFUSE_GATE");
  if (!name || !*name || std::strcmp(name, "decode") == 0) {
    mode = GateMode::kFewRows;
  } else if (std::strcmp(name, "always") == 0) {
    mode = GateMode::kAlways;
  } else if (std::strcmp(name, "off") == 0) {
    mode = GateMode::kOff;
  } else {
    return Error(api, ORT_INVALID_ARGUMENT, "SPARSEFUSE_GATE=%.40s is none of off, decode, always",
                 name);
  }
  return nullptr;
}

}  // namespace sparsefuse::plugin

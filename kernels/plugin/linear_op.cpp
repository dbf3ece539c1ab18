#include "kernels/plugin/linear_op.h"

#include <cstdio>

#include "kernels/plugin/ort_api.h"

namespace sparsefuse::plugin {
namespace {

constexpr int kVersion = 1;

const LinearOp& Self(const OrtCustomOp* op) noexcept { return *static_cast<const LinearOp*>(op); }

// Y has X's dimensions but for the last. Says nothing when X's rank or one of its dimensions is
// unknown: ONNX Runtime cannot express that here. It asks only the first of the ops of one name, so
// the type comes from X.
OrtStatus* TryInferShape(const OrtApi& api, OrtShapeInferContext& context) noexcept {
  const OrtOpAttr* attribute = nullptr;
  int64_t outputs = 0;
  size_t bytes = 0;
  SPARSEFUSE_RETURN_IF_ERROR(api.ShapeInferContext_GetAttribute(&context, "N", &attribute));
  SPARSEFUSE_RETURN_IF_ERROR(
      api.ReadOpAttr(attribute, ORT_OP_ATTR_INT, &outputs, sizeof outputs, &bytes));
  OrtTensorTypeAndShapeInfo* x = nullptr;  // owned by the context
  SPARSEFUSE_RETURN_IF_ERROR(api.ShapeInferContext_GetInputTypeShape(&context, kX, &x));
  ONNXTensorElementDataType type{};
  size_t rank = 0;
  SPARSEFUSE_RETURN_IF_ERROR(api.GetTensorElementType(x, &type));
  SPARSEFUSE_RETURN_IF_ERROR(api.GetDimensionsCount(x, &rank));
  if (rank == 0 || rank > TensorShape::kMaxRank || outputs < 1) return nullptr;
  std::array<int64_t, TensorShape::kMaxRank> dims{};
  std::array<const char*, TensorShape::kMaxRank> symbols{};
  SPARSEFUSE_RETURN_IF_ERROR(api.GetDimensions(x, dims.data(), rank));
  SPARSEFUSE_RETURN_IF_ERROR(api.GetSymbolicDimensions(x, symbols.data(), rank));
  dims[rank - 1] = outputs;
  symbols[rank - 1] = "";
  for (size_t i = 0; i < rank; ++i) {
    if (dims[i] < 0 && !*symbols[i]) return nullptr;
  }
  OrtTensorTypeAndShapeInfo* y = nullptr;
  SPARSEFUSE_RETURN_IF_ERROR(api.CreateTensorTypeAndShapeInfo(&y));
  OrtStatus* status = api.SetTensorElementType(y, type);
  if (!status) status = api.SetDimensions(y, dims.data(), rank);
  if (!status) status = api.SetSymbolicDimensions(y, symbols.data(), rank);
  if (!status) status = api.ShapeInferContext_SetOutputTypeShape(&context, 0, y);
  api.ReleaseTensorTypeAndShapeInfo(y);
  return status;
}

// Never a status: ONNX Runtime 1.31 does not free one that is returned here, and what is wrong with
// an attribute is said when the kernel is made.
OrtStatus* InferShape(const OrtApi& api, OrtShapeInferContext& context) noexcept {
  if (OrtStatus* status = TryInferShape(api, context)) api.ReleaseStatus(status);
  return nullptr;
}

}  // namespace

LinearOp::LinearOp(const OrtApi& ort, const LinearVariant& kind,
                   ONNXTensorElementDataType activations, const LinearProvider& by) noexcept
    : OrtCustomOp{}, api(ort), variant(kind), type(activations), provider(by) {
  constexpr const char* kEncodings[] = {"8", "4", "Nested1", "Nested4"};
  std::snprintf(
      name.data(), name.size(), "%s%s%s", variant.sparse ? "BlockSparseLinear" : "QuantizedLinear",
      kEncodings[static_cast<size_t>(variant.encoding)], ActivationName(variant.activation));
  version = ORT_API_VERSION;
  GetName = [](const OrtCustomOp* op) noexcept { return Self(op).name.data(); };
  GetExecutionProviderType = [](const OrtCustomOp* op) noexcept { return Self(op).provider.type; };
  GetInputTypeCount = [](const OrtCustomOp* op) noexcept { return InputCount(Self(op).variant); };
  GetInputType = [](const OrtCustomOp* op, size_t index) noexcept {
    switch (KindOf(Self(op).variant, index)) {
      case kX:
        return Self(op).type;
      case kWeight:
        return Self(op).variant.encoding == Encoding::kInt8 ? ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8
                                                            : ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8;
      case kScaleCode:
        return ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8;
      case kQuad:
        return ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT16;
      case kGroupPtr:
        return ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32;
      default:
        return ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
    }
  };
  GetOutputTypeCount = [](const OrtCustomOp*) noexcept { return size_t{1}; };
  GetOutputType = [](const OrtCustomOp* op, size_t) noexcept { return Self(op).type; };
  GetInputCharacteristic = [](const OrtCustomOp*, size_t) noexcept {
    return INPUT_OUTPUT_REQUIRED;
  };
  GetOutputCharacteristic = GetInputCharacteristic;
  GetInputMemoryType = [](const OrtCustomOp* op, size_t index) noexcept {
    return Self(op).provider.memory(KindOf(Self(op).variant, index));
  };
  GetVariadicInputMinArity = [](const OrtCustomOp*) noexcept { return 0; };
  GetVariadicInputHomogeneity = GetVariadicInputMinArity;
  GetVariadicOutputMinArity = GetVariadicInputMinArity;
  GetVariadicOutputHomogeneity = GetVariadicInputMinArity;
  GetStartVersion = [](const OrtCustomOp*) noexcept { return kVersion; };
  GetEndVersion = GetStartVersion;
  CreateKernelV2 = provider.make;
  KernelComputeV2 = provider.compute;
  KernelDestroy = provider.destroy;
  InferOutputShapeFn = [](const OrtCustomOp* op, OrtShapeInferContext* context) noexcept {
    return InferShape(Self(op).api, *context);
  };
}

LinearOps::LinearOps(const OrtApi& api, const LinearProvider& provider) : api_(api) {
  for (const bool sparse : {false, true}) {
    for (const Encoding encoding :
         {Encoding::kInt8, Encoding::kInt4, Encoding::kNested1, Encoding::kNested4}) {
      for (const Activation activation : kActivations) {
        for (const auto type :
             {ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16}) {
          ops_.emplace_back(api, LinearVariant{encoding, sparse, activation}, type, provider);
        }
      }
    }
  }
}

OrtStatus* LinearOps::AddTo(OrtCustomOpDomain* domain) const noexcept {
  for (const LinearOp& op : ops_) SPARSEFUSE_RETURN_IF_ERROR(api_.CustomOpDomain_Add(domain, &op));
  return nullptr;
}

}  // namespace sparsefuse::plugin

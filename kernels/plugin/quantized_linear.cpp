#include "kernels/plugin/quantized_linear.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <memory>
#include <new>
#include <thread>

#include "kernels/base/float16.h"
#include "kernels/linear/linear.h"
#include "kernels/plugin/ort_api.h"

namespace sparsefuse::plugin {
namespace {

constexpr const char* kOperator = "QuantizedLinear8";
constexpr int kVersion = 1;
constexpr int64_t kLayout = 1;

enum Input : size_t { kX, kWeight, kScaleCode, kBias, kSmooth, kInputCount };
constexpr std::array<const char*, kInputCount> kInputNames = {"X", "weight", "scale_code", "bias",
                                                              "smooth"};
using Values = std::array<const OrtValue*, kInputCount>;

constexpr size_t Align(size_t bytes) noexcept {
  return (bytes + kLinearAlignment - 1) / kLinearAlignment * kLinearAlignment;
}

struct AlignedDelete {
  void operator()(std::byte* bytes) const noexcept {
    operator delete[](bytes, std::align_val_t{kLinearAlignment});
  }
};
using AlignedBytes = std::unique_ptr<std::byte[], AlignedDelete>;

// One block from ONNX Runtime's arena for the time of a run, or from the stack if that is enough.
class Scratch {
 public:
  explicit Scratch(OrtAllocator* allocator) noexcept : allocator_(allocator) {}
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  ~Scratch() {
    if (block_) allocator_->Free(allocator_, block_);
  }

  // Aligned bytes; null when there is no memory. Call once.
  std::byte* Get(size_t bytes) noexcept {
    if (bytes <= sizeof(near_)) return near_;
    size_t room = bytes + kLinearAlignment;
    block_ = allocator_->Alloc(allocator_, room);
    void* start = block_;
    return static_cast<std::byte*>(std::align(kLinearAlignment, bytes, start, room));
  }

 private:
  OrtAllocator* allocator_;
  void* block_ = nullptr;
  alignas(kLinearAlignment) std::byte near_[8192];
};

// The pool of the session that runs the node.
struct Pool {
  const OrtApi& api;
  const OrtKernelContext* context;
};

void RunOnPool(void* opaque, size_t count, void (*body)(void*, size_t), void* argument) {
  struct Call {
    void (*body)(void*, size_t);
    void* argument;
  } call{body, argument};
  const auto forward = [](void* c, size_t i) {
    static_cast<const Call*>(c)->body(static_cast<const Call*>(c)->argument, i);
  };
  const Pool& pool = *static_cast<const Pool*>(opaque);
  OrtStatus* status = pool.api.KernelContext_ParallelFor(pool.context, forward, count, 0, &call);
  if (!status) return;
  // Bodies write the same bytes however often they run, so a loop that failed halfway is repeated.
  pool.api.ReleaseStatus(status);
  for (size_t i = 0; i < count; ++i) body(argument, i);
}

class QuantizedLinear {
 public:
  explicit QuantizedLinear(const OrtApi& api) noexcept : api_(api) {}
  QuantizedLinear(const QuantizedLinear&) = delete;
  QuantizedLinear& operator=(const QuantizedLinear&) = delete;
  ~QuantizedLinear() {
    if (allocator_) api_.ReleaseAllocator(allocator_);
  }

  OrtStatus* Init(const OrtKernelInfo& info) noexcept {
    size_t size = name_.size();
    if (OrtStatus* status = api_.KernelInfo_GetNodeName(&info, name_.data(), &size)) {
      api_.ReleaseStatus(status);  // longer than the buffer
      name_.back() = '\0';
    }
    return Located(Construct(info));
  }

  OrtStatus* Compute(OrtKernelContext& context) noexcept { return Located(Run(context)); }

 private:
  OrtStatus* Construct(const OrtKernelInfo& info) noexcept;
  OrtStatus* Run(OrtKernelContext& context) noexcept;
  OrtStatus* CheckConstants(const Values& values) const noexcept;
  OrtStatus* ReadWeights(const Values& values, LinearWeights& weights) const noexcept;
  OrtStatus* RunRows(OrtKernelContext& context, const OrtValue* x, OrtValue* y, bool half,
                     int64_t rows) noexcept;

  // Puts the node's name before an error's message.
  OrtStatus* Located(OrtStatus* status) const noexcept {
    if (!status) return nullptr;
    OrtStatus* located = Error(api_, api_.GetErrorCode(status), "%s node \"%.100s\": %s", kOperator,
                               name_.data(), api_.GetErrorMessage(status));
    api_.ReleaseStatus(status);
    return located;
  }

  const OrtApi& api_;
  std::array<char, 256> name_{};
  LinearShape shape_{};
  float scale_base_ = 0;
  const LinearKernel* kernel_ = nullptr;
  OrtAllocator* allocator_ = nullptr;
  int threads_ = 1;
  bool constant_ = false;    // weights, scales, bias and smooth are initializers
  bool all_smooth_ = false;  // constant and all ones
  AlignedBytes prepared_;    // when constant
};

OrtStatus* QuantizedLinear::Construct(const OrtKernelInfo& info) noexcept {
  SPARSEFUSE_RETURN_IF_ERROR(ReadInt(api_, info, "K", 1, kMaxInputs, shape_.inputs));
  SPARSEFUSE_RETURN_IF_ERROR(ReadInt(api_, info, "N", 1, kMaxOutputs, shape_.outputs));
  SPARSEFUSE_RETURN_IF_ERROR(
      ReadInt(api_, info, "scale_groups", 0, GroupsPerPanel(kMaxInputs), shape_.scale_groups));
  SPARSEFUSE_RETURN_IF_ERROR(ReadPositiveFloat(api_, info, "scale_base", scale_base_));
  int64_t layout = 0;
  SPARSEFUSE_RETURN_IF_ERROR(ReadInt(api_, info, "layout", 1, INT64_MAX, layout));
  if (layout != kLayout) {
    return Error(
        api_, ORT_NOT_IMPLEMENTED,
        "weights are in layout %lld, this library reads layout %lld: a newer library is needed",
        static_cast<long long>(layout), static_cast<long long>(kLayout));
  }
  size_t inputs = 0;
  SPARSEFUSE_RETURN_IF_ERROR(api_.KernelInfo_GetInputCount(&info, &inputs));
  if (inputs != kInputCount) {
    return Error(api_, ORT_INVALID_ARGUMENT, "has %zu inputs, needs %zu", inputs,
                 size_t{kInputCount});
  }
  kernel_ = SelectLinearKernel();
  if (!kernel_) {
    std::array<char, 256> reason;
    ExplainLinearChoice(nullptr, reason);
    return Error(api_, ORT_NOT_IMPLEMENTED, "%s", reason.data());
  }
  threads_ = static_cast<int>(std::clamp(std::thread::hardware_concurrency(), 1u, 1024u));
  SPARSEFUSE_RETURN_IF_ERROR(api_.KernelInfoGetAllocator(&info, OrtMemTypeDefault, &allocator_));

  Values values{};
  constant_ = true;
  for (size_t i = kWeight; i < kInputCount; ++i) {
    int is_constant = 0;
    SPARSEFUSE_RETURN_IF_ERROR(
        api_.KernelInfoGetConstantInput_tensor(&info, i, &is_constant, &values[i]));
    constant_ = constant_ && is_constant;
  }
  if (!constant_) return nullptr;  // checked and prepared at each run
  LinearWeights weights;
  SPARSEFUSE_RETURN_IF_ERROR(ReadWeights(values, weights));
  all_smooth_ = !weights.smooth;
  const size_t bytes = kernel_->prepared_bytes(shape_);
  prepared_.reset(new (std::align_val_t{kLinearAlignment}, std::nothrow) std::byte[bytes]);
  if (!prepared_) return Error(api_, ORT_FAIL, "no memory for %zu bytes of weights", bytes);
  kernel_->prepare(weights, prepared_.get());
  return nullptr;
}

OrtStatus* QuantizedLinear::CheckConstants(const Values& values) const noexcept {
  const std::array weight = {shape_.panels() * shape_.groups(), kPanelOutputs, kGroupInputs / 4,
                             int64_t{4}};
  const std::array scale = {shape_.panels() * shape_.scale_rows_per_panel(), kPanelOutputs};
  const struct {
    Input input;
    ONNXTensorElementDataType type;
    std::span<const int64_t> dims;
  } expected[] = {
      {kWeight, ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8, weight},
      {kScaleCode, ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8, scale},
      {kBias, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, {&shape_.outputs, 1}},
      {kSmooth, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, {&shape_.inputs, 1}},
  };
  for (const auto& e : expected) {
    SPARSEFUSE_RETURN_IF_ERROR(
        CheckTensor(api_, values[e.input], kInputNames[e.input], e.type, e.dims));
  }
  return nullptr;
}

// After CheckConstants, so that every pointer is to as many bytes as the shape says.
OrtStatus* QuantizedLinear::ReadWeights(const Values& values,
                                        LinearWeights& weights) const noexcept {
  SPARSEFUSE_RETURN_IF_ERROR(CheckConstants(values));
  std::array<const void*, kInputCount> data{};
  for (size_t i = kWeight; i < kInputCount; ++i) {
    // The interface has no const form; nothing is written.
    void* bytes = nullptr;
    SPARSEFUSE_RETURN_IF_ERROR(api_.GetTensorMutableData(const_cast<OrtValue*>(values[i]), &bytes));
    data[i] = bytes;
  }
  weights = {.shape = shape_,
             .weight = static_cast<const int8_t*>(data[kWeight]),
             .scale_code = static_cast<const uint8_t*>(data[kScaleCode]),
             .scale_base = scale_base_,
             .bias = static_cast<const float*>(data[kBias]),
             .smooth = static_cast<const float*>(data[kSmooth])};
  if (all_smooth_ || std::all_of(weights.smooth, weights.smooth + shape_.inputs,
                                 [](float v) { return v == 1.0f; })) {
    weights.smooth = nullptr;
  }
  return nullptr;
}

OrtStatus* QuantizedLinear::Run(OrtKernelContext& context) noexcept {
  const OrtValue* x = nullptr;
  SPARSEFUSE_RETURN_IF_ERROR(api_.KernelContext_GetInput(&context, kX, &x));
  TensorShape shape;
  SPARSEFUSE_RETURN_IF_ERROR(ReadShape(api_, x, kInputNames[kX], shape));
  if (shape.type != ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT &&
      shape.type != ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16) {
    return Error(api_, ORT_INVALID_ARGUMENT,
                 "input X has element type %d, expected float or float16",
                 static_cast<int>(shape.type));
  }
  if (shape.rank == 0) return Error(api_, ORT_INVALID_ARGUMENT, "input X is a scalar");
  int64_t& last = shape.dims[shape.rank - 1];
  if (last != shape_.inputs) {
    return Error(api_, ORT_INVALID_ARGUMENT, "input X has last dimension %lld, expected K = %lld",
                 static_cast<long long>(last), static_cast<long long>(shape_.inputs));
  }
  last = shape_.outputs;
  OrtValue* y = nullptr;
  SPARSEFUSE_RETURN_IF_ERROR(
      api_.KernelContext_GetOutput(&context, 0, shape.dims.data(), shape.rank, &y));
  if (!y) return Error(api_, ORT_INVALID_ARGUMENT, "has no output");
  const auto leading = std::span(shape.dims).first(shape.rank - 1);
  if (std::find(leading.begin(), leading.end(), 0) != leading.end()) return nullptr;
  int64_t rows = 1;  // cannot overflow: X holds rows · K elements
  for (int64_t dim : leading) rows *= dim;
  return RunRows(context, x, y, shape.type == ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16, rows);
}

OrtStatus* QuantizedLinear::RunRows(OrtKernelContext& context, const OrtValue* x, OrtValue* y,
                                    bool half, int64_t rows) noexcept {
  LinearWeights weights{.shape = shape_};
  if (!constant_ || kernel_->reads_weights) {
    Values values{};
    for (size_t i = kWeight; i < kInputCount; ++i) {
      SPARSEFUSE_RETURN_IF_ERROR(api_.KernelContext_GetInput(&context, i, &values[i]));
    }
    SPARSEFUSE_RETURN_IF_ERROR(ReadWeights(values, weights));
  }
  void* x_data = nullptr;
  void* y_data = nullptr;
  SPARSEFUSE_RETURN_IF_ERROR(api_.GetTensorMutableData(const_cast<OrtValue*>(x), &x_data));
  SPARSEFUSE_RETURN_IF_ERROR(api_.GetTensorMutableData(y, &y_data));

  const auto x_count = static_cast<size_t>(rows * shape_.inputs);
  const auto y_count = static_cast<size_t>(rows * shape_.outputs);
  const size_t workspace = Align(kernel_->workspace_bytes(shape_, rows));
  const size_t prepared = constant_ ? 0 : Align(kernel_->prepared_bytes(shape_));
  const size_t x_bytes = half ? Align(x_count * sizeof(float)) : 0;
  const size_t y_bytes = half ? y_count * sizeof(float) : 0;
  Scratch scratch(allocator_);
  std::byte* bytes = scratch.Get(workspace + prepared + x_bytes + y_bytes);
  if (!bytes) {
    return Error(api_, ORT_FAIL, "no memory for %zu bytes of workspace",
                 workspace + prepared + x_bytes + y_bytes);
  }
  std::byte* prepared_now = bytes + workspace;
  if (!constant_) kernel_->prepare(weights, prepared_now);

  Pool pool{api_, &context};
  LinearRun run{.rows = rows,
                .x = static_cast<const float*>(x_data),
                .y = static_cast<float*>(y_data),
                .workspace = bytes,
                .parallel = {.run = RunOnPool, .pool = &pool, .threads = threads_}};
  if (half) {
    auto* wide = reinterpret_cast<float*>(prepared_now + prepared);
    const auto* narrow = static_cast<const uint16_t*>(x_data);
    std::transform(narrow, narrow + x_count, wide, Float16ToFloat);
    run.x = wide;
    run.y = reinterpret_cast<float*>(prepared_now + prepared + x_bytes);
  }
  kernel_->run(weights, constant_ ? prepared_.get() : prepared_now, run);
  if (half) std::transform(run.y, run.y + y_count, static_cast<uint16_t*>(y_data), FloatToFloat16);
  return nullptr;
}

OrtStatus* ORT_API_CALL MakeKernel(const OrtCustomOp*, const OrtApi* api, const OrtKernelInfo* info,
                                   void** kernel) noexcept {
  *kernel = nullptr;
  std::unique_ptr<QuantizedLinear> made(new (std::nothrow) QuantizedLinear(*api));
  if (!made) return Error(*api, ORT_FAIL, "no memory for a kernel");
  SPARSEFUSE_RETURN_IF_ERROR(made->Init(*info));
  *kernel = made.release();
  return nullptr;
}

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

const QuantizedLinearOp& Self(const OrtCustomOp* op) noexcept {
  return *static_cast<const QuantizedLinearOp*>(op);
}

}  // namespace

QuantizedLinearOp::QuantizedLinearOp(const OrtApi& ort,
                                     ONNXTensorElementDataType activations) noexcept
    : OrtCustomOp{}, api(ort), type(activations) {
  version = ORT_API_VERSION;
  GetName = [](const OrtCustomOp*) noexcept { return kOperator; };
  GetExecutionProviderType = [](const OrtCustomOp*) noexcept -> const char* { return nullptr; };
  GetInputTypeCount = [](const OrtCustomOp*) noexcept { return size_t{kInputCount}; };
  GetInputType = [](const OrtCustomOp* op, size_t index) noexcept {
    switch (index) {
      case kX:
        return Self(op).type;
      case kWeight:
        return ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8;
      case kScaleCode:
        return ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8;
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
  GetInputMemoryType = [](const OrtCustomOp*, size_t) noexcept { return OrtMemTypeDefault; };
  GetVariadicInputMinArity = [](const OrtCustomOp*) noexcept { return 0; };
  GetVariadicInputHomogeneity = GetVariadicInputMinArity;
  GetVariadicOutputMinArity = GetVariadicInputMinArity;
  GetVariadicOutputHomogeneity = GetVariadicInputMinArity;
  GetStartVersion = [](const OrtCustomOp*) noexcept { return kVersion; };
  GetEndVersion = GetStartVersion;
  CreateKernelV2 = MakeKernel;
  KernelComputeV2 = [](void* kernel, OrtKernelContext* context) noexcept {
    return static_cast<QuantizedLinear*>(kernel)->Compute(*context);
  };
  KernelDestroy = [](void* kernel) noexcept { delete static_cast<QuantizedLinear*>(kernel); };
  InferOutputShapeFn = [](const OrtCustomOp* op, OrtShapeInferContext* context) noexcept {
    return InferShape(Self(op).api, *context);
  };
}

}  // namespace sparsefuse::plugin

#include "kernels/plugin/linear_op.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <thread>

#include "kernels/linear/gate.h"
#include "kernels/plugin/ort_api.h"

namespace sparsefuse::plugin {
namespace {

std::atomic<int64_t> gated_rows{0}, easy_gated_rows{0};

void CountGatedRows(int64_t rows, int64_t easy) noexcept {
  gated_rows.fetch_add(rows, std::memory_order_relaxed);
  easy_gated_rows.fetch_add(easy, std::memory_order_relaxed);
}

constexpr int kVersion = 1;
constexpr int64_t kLayout = 1;

// What an input may be, and which of an operator's inputs are what: the first five always, the gate
// of nested weights, the blocks of sparse ones.
enum Input : size_t {
  kX,
  kWeight,
  kScaleCode,
  kBias,
  kSmooth,
  kGate,
  kQuad,
  kGroupPtr,
  kInputKinds
};
constexpr std::array<const char*, kInputKinds> kInputNames = {
    "X", "weight", "scale_code", "bias", "smooth", "gate", "quad", "group_ptr"};
using Values = std::array<const OrtValue*, kInputKinds>;  // by kind; null: not there

constexpr size_t InputCount(const LinearVariant& variant) noexcept {
  return 5 + (IsNested(variant.encoding) ? 1 : 0) + (variant.sparse ? 2 : 0);
}
constexpr Input KindOf(const LinearVariant& variant, size_t index) noexcept {
  return static_cast<Input>(index >= kGate && !IsNested(variant.encoding) ? index + 1 : index);
}

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

class Linear {
 public:
  explicit Linear(const LinearOp& op) noexcept : op_(op), api_(op.api) {
    shape_.encoding = op.variant.encoding;
    shape_.sparse = op.variant.sparse;
  }
  Linear(const Linear&) = delete;
  Linear& operator=(const Linear&) = delete;
  ~Linear() {
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
  OrtStatus* ReadGateMode() noexcept;
  OrtStatus* ReadBlocks(const Values& values, BlockIndex& blocks) const noexcept;
  OrtStatus* CheckConstants(const Values& values, const LinearWeights& weights) const noexcept;
  OrtStatus* ReadWeights(const Values& values, LinearWeights& weights) const noexcept;
  OrtStatus* RunRows(OrtKernelContext& context, const OrtValue* x, OrtValue* y,
                     int64_t rows) noexcept;
  OrtStatus* Data(const OrtValue* value, const void** data) const noexcept;

  // Puts the node's name before an error's message.
  OrtStatus* Located(OrtStatus* status) const noexcept {
    if (!status) return nullptr;
    OrtStatus* located = Error(api_, api_.GetErrorCode(status), "%s node \"%.100s\": %s",
                               op_.name.data(), name_.data(), api_.GetErrorMessage(status));
    api_.ReleaseStatus(status);
    return located;
  }

  const LinearOp& op_;
  const OrtApi& api_;
  std::array<char, 256> name_{};
  LinearShape shape_{};
  float scale_base_ = 0;
  const LinearKernel* kernel_ = nullptr;
  OrtAllocator* allocator_ = nullptr;
  int threads_ = 1;
  GateMode gate_mode_ = GateMode::kOff;
  bool constant_ = false;  // all inputs but X are initializers
  AlignedBytes prepared_;  // when constant
};

OrtStatus* Linear::Construct(const OrtKernelInfo& info) noexcept {
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
  if (inputs != InputCount(op_.variant)) {
    return Error(api_, ORT_INVALID_ARGUMENT, "has %zu inputs, needs %zu", inputs,
                 InputCount(op_.variant));
  }
  SPARSEFUSE_RETURN_IF_ERROR(ReadGateMode());
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
  for (size_t i = 1; i < inputs; ++i) {
    int is_constant = 0;
    SPARSEFUSE_RETURN_IF_ERROR(api_.KernelInfoGetConstantInput_tensor(
        &info, i, &is_constant, &values[KindOf(op_.variant, i)]));
    constant_ = constant_ && is_constant;
  }
  if (!constant_) return nullptr;  // checked and prepared at each run
  LinearWeights weights{};
  SPARSEFUSE_RETURN_IF_ERROR(ReadWeights(values, weights));
  const size_t bytes = kernel_->prepared_bytes(weights);
  prepared_.reset(new (std::align_val_t{kLinearAlignment}, std::nothrow) std::byte[bytes]);
  if (!prepared_) return Error(api_, ORT_FAIL, "no memory for %zu bytes of weights", bytes);
  kernel_->prepare(weights, prepared_.get());
  return nullptr;
}

OrtStatus* Linear::ReadGateMode() noexcept {
  const char* mode = std::getenv("SPARSEFUSE_GATE");
  if (!mode || !*mode || std::strcmp(mode, "decode") == 0) {
    gate_mode_ = GateMode::kFewRows;
  } else if (std::strcmp(mode, "always") == 0) {
    gate_mode_ = GateMode::kAlways;
  } else if (std::strcmp(mode, "off") != 0) {
    return Error(api_, ORT_INVALID_ARGUMENT, "SPARSEFUSE_GATE=%.40s is none of off, decode, always",
                 mode);
  }
  return nullptr;
}

OrtStatus* Linear::Data(const OrtValue* value, const void** data) const noexcept {
  // The interface has no const form; nothing is written.
  void* bytes = nullptr;
  SPARSEFUSE_RETURN_IF_ERROR(api_.GetTensorMutableData(const_cast<OrtValue*>(value), &bytes));
  *data = bytes;
  return nullptr;
}

// The lists of a sparse layer, checked.
OrtStatus* Linear::ReadBlocks(const Values& values, BlockIndex& blocks) const noexcept {
  TensorShape weight;
  SPARSEFUSE_RETURN_IF_ERROR(ReadShape(api_, values[kWeight], "weight", weight));
  const size_t axis = IsNested(shape_.encoding) ? 1 : 0;
  const int64_t groups = axis < weight.rank ? weight.dims[axis] : 0;
  const int64_t most = shape_.panels() * GroupsPerPanel(shape_.inputs);
  if (groups > most) {
    return Error(api_, ORT_INVALID_ARGUMENT,
                 "input weight has %lld groups, at most %lld make sense",
                 static_cast<long long>(groups), static_cast<long long>(most));
  }
  const int64_t quads = groups * kGroupQuads, ends = shape_.panels() + 1;
  SPARSEFUSE_RETURN_IF_ERROR(
      CheckTensor(api_, values[kQuad], "quad", ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT16, {&quads, 1}));
  SPARSEFUSE_RETURN_IF_ERROR(CheckTensor(api_, values[kGroupPtr], "group_ptr",
                                         ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32, {&ends, 1}));
  const void *quad = nullptr, *group_ptr = nullptr;
  SPARSEFUSE_RETURN_IF_ERROR(Data(values[kQuad], &quad));
  SPARSEFUSE_RETURN_IF_ERROR(Data(values[kGroupPtr], &group_ptr));
  static constexpr uint16_t kNone = 0;  // an empty tensor may have no address
  blocks = {quad ? static_cast<const uint16_t*>(quad) : &kNone,
            static_cast<const int32_t*>(group_ptr)};
  std::array<char, 128> wrong;
  if (!CheckBlocks(blocks, shape_.inputs, shape_.outputs, groups, wrong)) {
    return Error(api_, ORT_INVALID_ARGUMENT, "blocks: %s", wrong.data());
  }
  return nullptr;
}

// Types and dimensions. `weights` has its blocks already.
OrtStatus* Linear::CheckConstants(const Values& values,
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
        CheckTensor(api_, values[e.input], kInputNames[e.input], e.type, e.dims));
  }
  if (!IsNested(shape_.encoding)) return nullptr;
  TensorShape gate;
  SPARSEFUSE_RETURN_IF_ERROR(ReadShape(api_, values[kGate], "gate", gate));
  const void* header = nullptr;
  if (gate.type != ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT || gate.rank != 1 ||
      gate.dims[0] < kGateHeader) {
    return Error(api_, ORT_INVALID_ARGUMENT, "input gate must be float [%lld or more]",
                 static_cast<long long>(kGateHeader));
  }
  SPARSEFUSE_RETURN_IF_ERROR(Data(values[kGate], &header));
  const float rows = static_cast<const float*>(header)[3];
  if (!(rows >= 0 && rows <= kMaxSketchRows && rows == std::floor(rows))) {
    return Error(api_, ORT_INVALID_ARGUMENT,
                 "input gate says %g sketch rows, 0 to %lld are possible",
                 static_cast<double>(rows), static_cast<long long>(kMaxSketchRows));
  }
  const int64_t length = kGateHeader + static_cast<int64_t>(rows) * shape_.inputs;
  return CheckTensor(api_, values[kGate], "gate", ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT,
                     {&length, 1});
}

// Every pointer is to as many bytes as the shape says.
OrtStatus* Linear::ReadWeights(const Values& values, LinearWeights& weights) const noexcept {
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

OrtStatus* Linear::Run(OrtKernelContext& context) noexcept {
  const OrtValue* x = nullptr;
  SPARSEFUSE_RETURN_IF_ERROR(api_.KernelContext_GetInput(&context, kX, &x));
  TensorShape shape;
  SPARSEFUSE_RETURN_IF_ERROR(ReadShape(api_, x, kInputNames[kX], shape));
  if (shape.type != op_.type) {
    return Error(api_, ORT_INVALID_ARGUMENT, "input X has element type %d, expected %d",
                 static_cast<int>(shape.type), static_cast<int>(op_.type));
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
  return RunRows(context, x, y, rows);
}

OrtStatus* Linear::RunRows(OrtKernelContext& context, const OrtValue* x, OrtValue* y,
                           int64_t rows) noexcept {
  LinearWeights weights{.shape = shape_};
  if (!constant_ || kernel_->reads_weights) {
    Values values{};
    for (size_t i = 1; i < InputCount(op_.variant); ++i) {
      SPARSEFUSE_RETURN_IF_ERROR(
          api_.KernelContext_GetInput(&context, i, &values[KindOf(op_.variant, i)]));
    }
    SPARSEFUSE_RETURN_IF_ERROR(ReadWeights(values, weights));
  }
  const void* x_data = nullptr;
  void* y_data = nullptr;
  SPARSEFUSE_RETURN_IF_ERROR(Data(x, &x_data));
  SPARSEFUSE_RETURN_IF_ERROR(api_.GetTensorMutableData(y, &y_data));

  const size_t workspace = Align(kernel_->workspace_bytes(shape_, rows));
  const size_t prepared = constant_ ? 0 : kernel_->prepared_bytes(weights);
  Scratch scratch(allocator_);
  std::byte* bytes = scratch.Get(workspace + prepared);
  if (!bytes) {
    return Error(api_, ORT_FAIL, "no memory for %zu bytes of workspace", workspace + prepared);
  }
  if (!constant_) kernel_->prepare(weights, bytes + workspace);
  Pool pool{api_, &context};
  int64_t easy_rows = 0;
  kernel_->run(weights, constant_ ? prepared_.get() : bytes + workspace,
               {.rows = rows,
                .x = x_data,
                .y = y_data,
                .half = op_.type == ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16,
                .activation = op_.variant.activation,
                .gate = gate_mode_,
                .easy_rows = &easy_rows,
                .workspace = bytes,
                .parallel = {.run = RunOnPool, .pool = &pool, .threads = threads_}});
  if (IsNested(shape_.encoding) && IsGated(gate_mode_, rows)) CountGatedRows(rows, easy_rows);
  return nullptr;
}

const LinearOp& Self(const OrtCustomOp* op) noexcept { return *static_cast<const LinearOp*>(op); }

OrtStatus* ORT_API_CALL MakeKernel(const OrtCustomOp* op, const OrtApi* api,
                                   const OrtKernelInfo* info, void** kernel) noexcept {
  *kernel = nullptr;
  std::unique_ptr<Linear> made(new (std::nothrow) Linear(Self(op)));
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

}  // namespace

GatedRows CountedGatedRows() noexcept {
  return {gated_rows.load(std::memory_order_relaxed),
          easy_gated_rows.load(std::memory_order_relaxed)};
}

LinearOp::LinearOp(const OrtApi& ort, const LinearVariant& kind,
                   ONNXTensorElementDataType activations) noexcept
    : OrtCustomOp{}, api(ort), variant(kind), type(activations) {
  constexpr const char* kEncodings[] = {"8", "4", "Nested1", "Nested4"};
  std::snprintf(
      name.data(), name.size(), "%s%s%s", variant.sparse ? "BlockSparseLinear" : "QuantizedLinear",
      kEncodings[static_cast<size_t>(variant.encoding)], ActivationName(variant.activation));
  version = ORT_API_VERSION;
  GetName = [](const OrtCustomOp* op) noexcept { return Self(op).name.data(); };
  GetExecutionProviderType = [](const OrtCustomOp*) noexcept -> const char* { return nullptr; };
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
  GetInputMemoryType = [](const OrtCustomOp*, size_t) noexcept { return OrtMemTypeDefault; };
  GetVariadicInputMinArity = [](const OrtCustomOp*) noexcept { return 0; };
  GetVariadicInputHomogeneity = GetVariadicInputMinArity;
  GetVariadicOutputMinArity = GetVariadicInputMinArity;
  GetVariadicOutputHomogeneity = GetVariadicInputMinArity;
  GetStartVersion = [](const OrtCustomOp*) noexcept { return kVersion; };
  GetEndVersion = GetStartVersion;
  CreateKernelV2 = MakeKernel;
  KernelComputeV2 = [](void* kernel, OrtKernelContext* context) noexcept {
    return static_cast<Linear*>(kernel)->Compute(*context);
  };
  KernelDestroy = [](void* kernel) noexcept { delete static_cast<Linear*>(kernel); };
  InferOutputShapeFn = [](const OrtCustomOp* op, OrtShapeInferContext* context) noexcept {
    return InferShape(Self(op).api, *context);
  };
}

}  // namespace sparsefuse::plugin

#include "kernels/plugin/cuda/linear_kernel.h"

#include <cuda_runtime_api.h>

#include <cstdint>
#include <exception>
#include <new>

#include "kernels/cuda/linear.h"
#include "kernels/plugin/cuda/compiled_code.h"
#include "kernels/plugin/cuda/gate_counts.h"
#include "kernels/plugin/cuda_library.h"
#include "kernels/plugin/linear_node.h"
#include "kernels/plugin/ort_api.h"

namespace sparsefuse::plugin {
namespace {

constexpr uintptr_t kTensorAlignment = 16;  // of X and Y, as kernels/cuda/linear.h wants it

constexpr bool IsOnHost(Input input) noexcept { return input >= kSmooth; }

OrtStatus* Check(const OrtApi& api, cudaError_t error, const char* what) noexcept {
  if (error == cudaSuccess) return nullptr;
  return Error(api, ORT_FAIL, "%s: %s (%s)", what, cudaGetErrorString(error),
               cudaGetErrorName(error));
}
#define SPARSEFUSE_RETURN_IF_CUDA_ERROR(call, what) \
  SPARSEFUSE_RETURN_IF_ERROR(Check(api_, (call), (what)))

std::byte* Align(void* block) noexcept {
  const auto address = reinterpret_cast<uintptr_t>(block);
  return static_cast<std::byte*>(block) + (-address & (cuda::kAlignment - 1));
}
constexpr size_t Align(size_t bytes) noexcept {
  return (bytes + cuda::kAlignment - 1) / cuda::kAlignment * cuda::kAlignment;
}

// ONNX Runtime's threads have the provider's device as a rule.
cudaError_t UseDevice(int device) noexcept {
  int current = -1;
  const cudaError_t error = cudaGetDevice(&current);
  return error != cudaSuccess || current == device ? error : cudaSetDevice(device);
}

class CudaLinear {
 public:
  explicit CudaLinear(const LinearOp& op) noexcept : node_(op), api_(op.api) {}
  CudaLinear(const CudaLinear&) = delete;
  CudaLinear& operator=(const CudaLinear&) = delete;
  ~CudaLinear() {
    if (block_) allocator_->Free(allocator_, block_);
    if (allocator_) api_.ReleaseAllocator(allocator_);
  }

  OrtStatus* Init(const OrtKernelInfo& info) noexcept { return node_.Located(Construct(info)); }
  OrtStatus* Compute(OrtKernelContext& context) noexcept { return node_.Located(Run(context)); }

 private:
  OrtStatus* Construct(const OrtKernelInfo& info) noexcept;
  OrtStatus* CheckPlaces(const Values& values, OrtMemoryInfoDeviceType expected) const noexcept;
  OrtStatus* Prepare(LinearWeights weights, size_t quads, size_t gate) noexcept;
  OrtStatus* Allocate(size_t bytes) noexcept;
  OrtStatus* Run(OrtKernelContext& context) noexcept;
  bool IsHalf() const noexcept { return node_.op().type == ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16; }
  OrtStatus* Launch(const RunTensors& run, std::byte* workspace, cudaStream_t stream) noexcept;

  LinearNode node_;
  const OrtApi& api_;
  OrtAllocator* allocator_ = nullptr;  // of the provider's device
  int device_ = 0;
  void* block_ = nullptr;  // all that the layer has of the device's memory, but for its inputs
  cuda::Layer layer_{};
  GateMode gate_mode_ = GateMode::kOff;
  cuda::GateCounts* gate_counts_ = nullptr;
};

OrtStatus* CudaLinear::Construct(const OrtKernelInfo& info) noexcept {
  SPARSEFUSE_RETURN_IF_ERROR(node_.Read(info));
  SPARSEFUSE_RETURN_IF_ERROR(ReadGateMode(api_, gate_mode_));
  Values values{};
  SPARSEFUSE_RETURN_IF_ERROR(node_.ReadConstants(info, values));
  SPARSEFUSE_RETURN_IF_ERROR(CheckPlaces(values, OrtMemoryInfoDeviceType_CPU));
  LinearWeights weights{};
  SPARSEFUSE_RETURN_IF_ERROR(node_.ReadWeights(values, weights));
  SPARSEFUSE_RETURN_IF_ERROR(CheckPlaces(values, OrtMemoryInfoDeviceType_GPU));
  SPARSEFUSE_RETURN_IF_ERROR(api_.KernelInfoGetAllocator(&info, OrtMemTypeDefault, &allocator_));
  SPARSEFUSE_RETURN_IF_ERROR(api_.MemoryInfoGetId(allocator_->Info(allocator_), &device_));
  SPARSEFUSE_RETURN_IF_CUDA_ERROR(UseDevice(device_), "the provider's device");
  TensorShape gate;
  if (weights.gate) SPARSEFUSE_RETURN_IF_ERROR(ReadShape(api_, values[kGate], "gate", gate));
  const int64_t quads = weights.shape.sparse ? weights.GroupCount() * kGroupQuads : 0;
  return Prepare(weights, static_cast<size_t>(quads), static_cast<size_t>(gate.dims[0]));
}

// That the inputs that belong on this kind of device are there. ONNX Runtime puts initializers
// where memory() below asks for them; an address of the other kind would be the end of the process.
OrtStatus* CudaLinear::CheckPlaces(const Values& values,
                                   OrtMemoryInfoDeviceType expected) const noexcept {
  const bool on_host = expected == OrtMemoryInfoDeviceType_CPU;
  for (size_t i = 1; i < InputCount(node_.op().variant); ++i) {
    const Input input = KindOf(node_.op().variant, i);
    if (!values[input]) {
      return Error(api_, ORT_INVALID_ARGUMENT,
                   "input %s is no initializer, which the CUDA provider needs: run the node on the "
                   "CPU provider",
                   kInputNames[input]);
    }
    if (IsOnHost(input) != on_host) continue;
    const OrtMemoryInfo* memory = nullptr;
    SPARSEFUSE_RETURN_IF_ERROR(api_.GetTensorMemoryInfo(values[input], &memory));
    OrtMemoryInfoDeviceType type{};
    api_.MemoryInfoGetDeviceType(memory, &type);
    if (type != expected) {
      return Error(api_, ORT_FAIL, "ONNX Runtime has put input %s into %s memory",
                   kInputNames[input], on_host ? "a device's" : "the host's");
    }
  }
  return nullptr;
}

OrtStatus* CudaLinear::Allocate(size_t bytes) noexcept {
  try {  // what ONNX Runtime's arena throws when it is full
    block_ = allocator_->Alloc(allocator_, bytes);
  } catch (const std::exception& e) {
    return Error(api_, ORT_FAIL, "no memory for %zu bytes on the device: %.300s", bytes, e.what());
  } catch (...) {
  }
  return block_ ? nullptr : Error(api_, ORT_FAIL, "no memory for %zu bytes on the device", bytes);
}

// `weights` has smooth, gate and blocks in host memory. quads, gate: how many elements they have.
OrtStatus* CudaLinear::Prepare(LinearWeights weights, size_t quads, size_t gate) noexcept {
  cuda::Plan plan;
  int32_t workers = 0;
  SPARSEFUSE_RETURN_IF_CUDA_ERROR(cuda::SuggestWorkers(&workers), "reading the device's size");
  const cuda::Code* code = nullptr;
  SPARSEFUSE_RETURN_IF_ERROR(FindCompiledCode(api_, &code));
  cuda::MadeKernels made;
  try {
    plan = cuda::MakePlan(weights.shape, weights.blocks, workers);
    if (code) {
      const cuda::Code::Found found =
          code->Find(weights.shape, plan, node_.op().variant.activation, IsHalf());
      made = found.made;
      if (found.tile_panels != plan.shared_panels) {
        plan = cuda::MakePlan(weights.shape, weights.blocks, workers, found.tile_panels);
      }
    }
  } catch (const std::bad_alloc&) {
    return Error(api_, ORT_FAIL, "no memory for the layer's plan");
  }
  const size_t prepared_bytes = Align(cuda::PreparedBytes(plan));
  const size_t smooth_bytes =
      weights.smooth ? static_cast<size_t>(weights.shape.inputs) * sizeof(float) : 0;
  const size_t gate_bytes = gate * sizeof(float), quad_bytes = quads * sizeof(uint16_t);
  SPARSEFUSE_RETURN_IF_ERROR(Allocate(prepared_bytes + Align(smooth_bytes) + Align(gate_bytes) +
                                      Align(quad_bytes) + cuda::kAlignment));
  std::byte* const prepared = Align(block_);
  std::byte* next = prepared + prepared_bytes;
  const struct {
    const void* from;
    size_t bytes;
  } parts[] = {{weights.smooth, smooth_bytes},
               {weights.gate, gate_bytes},
               {weights.blocks.quad, quad_bytes}};
  // The null stream: whatever ONNX Runtime copied by it has arrived before.
  for (const auto& part : parts) {
    if (part.bytes == 0) continue;
    SPARSEFUSE_RETURN_IF_CUDA_ERROR(
        cudaMemcpyAsync(next, part.from, part.bytes, cudaMemcpyHostToDevice, nullptr),
        "copying constants");
    next += Align(part.bytes);
  }
  next = prepared + prepared_bytes;
  if (weights.smooth) weights.smooth = reinterpret_cast<const float*>(next);
  next += Align(smooth_bytes);
  if (weights.gate) weights.gate = reinterpret_cast<const float*>(next);
  next += Align(gate_bytes);
  // An address even where no quads are stored: null would mean dense.
  if (weights.shape.sparse) weights.blocks.quad = reinterpret_cast<const uint16_t*>(next);
  weights.blocks.group_ptr = nullptr;
  SPARSEFUSE_RETURN_IF_CUDA_ERROR(cuda::Prepare(weights, plan, prepared, nullptr, &layer_),
                                  "preparing the layer");
  SPARSEFUSE_RETURN_IF_CUDA_ERROR(cudaStreamSynchronize(nullptr), "preparing the layer");
  layer_.made = made;
  if (weights.gate) {
    SPARSEFUSE_RETURN_IF_CUDA_ERROR(FindGateCounts(&gate_counts_), "counting rows");
  }
  return nullptr;
}

OrtStatus* CudaLinear::Run(OrtKernelContext& context) noexcept {
  RunTensors run;
  SPARSEFUSE_RETURN_IF_ERROR(node_.OpenRun(context, run));
  if (run.rows == 0) return nullptr;
  if (run.rows > INT32_MAX) {
    return Error(api_, ORT_INVALID_ARGUMENT, "input X has %lld rows, at most %d are possible",
                 static_cast<long long>(run.rows), INT32_MAX);
  }
  for (const auto& [name, address] : {std::pair{"input X", run.x}, {"output Y", run.y}}) {
    if (reinterpret_cast<uintptr_t>(address) % kTensorAlignment != 0) {
      return Error(api_, ORT_INVALID_ARGUMENT, "%s is at address %p, no multiple of %d bytes", name,
                   address, static_cast<int>(kTensorAlignment));
    }
  }
  SPARSEFUSE_RETURN_IF_CUDA_ERROR(UseDevice(device_), "the provider's device");
  void* stream = nullptr;
  SPARSEFUSE_RETURN_IF_ERROR(api_.KernelContext_GetGPUComputeStream(&context, &stream));
  // The arena lends the block to this stream: given back while kernels still use it, it goes to
  // none but work that comes later in the stream.
  void* workspace = nullptr;
  SPARSEFUSE_RETURN_IF_ERROR(api_.KernelContext_GetScratchBuffer(
      &context, allocator_->Info(allocator_),
      cuda::WorkspaceBytes(layer_, run.rows) + cuda::kAlignment, &workspace));
  if (!workspace) return Error(api_, ORT_FAIL, "no memory for a workspace");
  OrtStatus* status = Launch(run, Align(workspace), static_cast<cudaStream_t>(stream));
  allocator_->Free(allocator_, workspace);
  return status;
}

OrtStatus* CudaLinear::Launch(const RunTensors& run, std::byte* workspace,
                              cudaStream_t stream) noexcept {
  SPARSEFUSE_RETURN_IF_CUDA_ERROR(cuda::Linear(layer_,
                                               {.rows = run.rows,
                                                .x = run.x,
                                                .y = run.y,
                                                .half = IsHalf(),
                                                .activation = node_.op().variant.activation,
                                                .gate = gate_mode_,
                                                .gate_counts = gate_counts_,
                                                .workspace = workspace},
                                               stream),
                                  "launching its kernels");
  return nullptr;
}

}  // namespace

const LinearProvider kCudaLinear = ProviderOf<CudaLinear>(kCudaProvider, [](Input input) noexcept {
  return IsOnHost(input) ? OrtMemTypeCPUInput : OrtMemTypeDefault;
});

}  // namespace sparsefuse::plugin

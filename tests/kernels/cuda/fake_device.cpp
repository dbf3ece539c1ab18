// Of ONNX Runtime's CUDA provider what the operators see of it: ONNX Runtime's own table of
// functions, with some of them replaced, and the operators given to its CPU provider.

#include "tests/kernels/cuda/fake_device.h"

#include <cstdlib>
#include <deque>
#include <stdexcept>
#include <vector>

#include "kernels/plugin/cuda/linear_kernel.h"
#include "tests/kernels/plugin_session.h"

namespace sparsefuse::test {
namespace {

constexpr uintptr_t kOffset = 64;  // of what the allocator lends, from a multiple of 256

const OrtMemoryInfo* MemoryOf(const char* name, int device) {
  OrtMemoryInfo* info = nullptr;  // never released: two of them
  Ort::ThrowOnError(
      Ort::GetApi().CreateMemoryInfo(name, OrtDeviceAllocator, device, OrtMemTypeDefault, &info));
  return info;
}
const OrtMemoryInfo* DeviceMemory() {
  static const OrtMemoryInfo* info = MemoryOf("Cuda", kFakeDevice);
  return info;
}
const OrtMemoryInfo* HostMemory() {
  static const OrtMemoryInfo* info = MemoryOf("Cpu", 0);
  return info;
}

void* Lend(size_t bytes) {
  if (bytes > Device().memory) throw std::runtime_error("the arena is full");
  const size_t room = (bytes + kOffset + 511) / 256 * 256;
  void* block = static_cast<std::byte*>(std::aligned_alloc(256, room)) + kOffset;
  Device().lent.insert(block);
  return block;
}

OrtAllocator allocator = {.version = ORT_API_VERSION,
                          .Alloc =
                              [](OrtAllocator*, size_t bytes) {
                                ++Device().allocations;
                                return Lend(bytes);
                              },
                          .Free =
                              [](OrtAllocator*, void* block) {
                                if (Device().lent.erase(block) != 1) std::abort();
                                std::free(static_cast<std::byte*>(block) - kOffset);
                              },
                          .Info = [](const OrtAllocator*) { return DeviceMemory(); },
                          .Reserve = nullptr};

// The values that inputs 1 to 3 had when they were last read: weight, scale_code, bias.
std::set<const OrtValue*> device_values;

OrtApi ReplacedApi() {
  OrtApi api = Ort::GetApi();
  api.KernelInfoGetAllocator = [](const OrtKernelInfo*, OrtMemType, OrtAllocator** out) noexcept {
    ++Device().allocators;
    *out = &allocator;
    return static_cast<OrtStatus*>(nullptr);
  };
  api.ReleaseAllocator = [](OrtAllocator*) noexcept { --Device().allocators; };
  api.KernelInfoGetConstantInput_tensor = [](const OrtKernelInfo* info, size_t index, int* constant,
                                             const OrtValue** value) noexcept {
    OrtStatus* status =
        Ort::GetApi().KernelInfoGetConstantInput_tensor(info, index, constant, value);
    if (index == 1) device_values.clear();
    if (!status && *constant && index <= 3) device_values.insert(*value);
    return status;
  };
  api.GetTensorMemoryInfo = [](const OrtValue* value, const OrtMemoryInfo** info) noexcept {
    const bool there =
        device_values.count(value) ? Device().constants_there : !Device().host_inputs_here;
    *info = there ? DeviceMemory() : HostMemory();
    return static_cast<OrtStatus*>(nullptr);
  };
  api.KernelContext_GetGPUComputeStream = [](const OrtKernelContext*, void** stream) noexcept {
    *stream = FakeStream();
    return static_cast<OrtStatus*>(nullptr);
  };
  api.KernelContext_GetScratchBuffer = [](const OrtKernelContext*, const OrtMemoryInfo* info,
                                          size_t bytes, void** block) noexcept {
    if (info != DeviceMemory()) return Ort::GetApi().CreateStatus(ORT_FAIL, "not the device's");
    *block = Device().failing == "scratch" ? nullptr : Lend(bytes);
    return static_cast<OrtStatus*>(nullptr);
  };
  return api;
}

// An operator of the CUDA provider that ONNX Runtime takes for one of its CPU provider.
struct HostOp : OrtCustomOp {
  explicit HostOp(const OrtCustomOp& of) : OrtCustomOp(of), cuda(of) {
    GetName = [](const OrtCustomOp* op) { return Of(op)->GetName(Of(op)); };
    GetExecutionProviderType = [](const OrtCustomOp*) -> const char* { return nullptr; };
    GetInputType = [](const OrtCustomOp* op, size_t i) { return Of(op)->GetInputType(Of(op), i); };
    GetInputTypeCount = [](const OrtCustomOp* op) { return Of(op)->GetInputTypeCount(Of(op)); };
    GetInputMemoryType = [](const OrtCustomOp*, size_t) { return OrtMemTypeDefault; };
    GetOutputType = [](const OrtCustomOp* op, size_t i) {
      return Of(op)->GetOutputType(Of(op), i);
    };
    CreateKernelV2 = [](const OrtCustomOp* op, const OrtApi* api, const OrtKernelInfo* info,
                        void** kernel) {
      return Of(op)->CreateKernelV2(Of(op), api, info, kernel);
    };
    InferOutputShapeFn = [](const OrtCustomOp* op, OrtShapeInferContext* context) {
      return Of(op)->InferOutputShapeFn(Of(op), context);
    };
  }
  static const OrtCustomOp* Of(const OrtCustomOp* op) {
    return &static_cast<const HostOp*>(op)->cuda;
  }
  const OrtCustomOp& cuda;
};

std::deque<HostOp> host_ops;

// All of them, as long as the process lives.
OrtCustomOpDomain* HostDomain() {
  static OrtCustomOpDomain* const domain = [] {
    static OrtApi api = ReplacedApi();
    api.CustomOpDomain_Add = [](OrtCustomOpDomain* to, const OrtCustomOp* op) noexcept {
      return Ort::GetApi().CustomOpDomain_Add(to, &host_ops.emplace_back(*op));
    };
    static const plugin::LinearOps ops(api, plugin::kCudaLinear);
    OrtCustomOpDomain* made = nullptr;
    Ort::ThrowOnError(Ort::GetApi().CreateCustomOpDomain("sparsefuse", &made));
    Ort::ThrowOnError(ops.AddTo(made));
    return made;
  }();
  return domain;
}

}  // namespace

FakeDevice& Device() {
  static FakeDevice device;
  return device;
}

cudaStream_t FakeStream() {
  static char stream;
  return reinterpret_cast<cudaStream_t>(&stream);
}

Ort::Session LoadOnDevice(const NodeModel& model) {
  Ort::SessionOptions options = Options(1);
  options.Add(HostDomain());
  return Load(model, options);
}

}  // namespace sparsefuse::test

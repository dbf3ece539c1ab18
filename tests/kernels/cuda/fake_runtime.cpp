// Of CUDA's runtime and of kernels/cuda what the operators call, on the host.

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <stdexcept>

#include "kernels/cuda/code.h"
#include "kernels/cuda/linear.h"
#include "tests/kernels/cuda/fake_device.h"

namespace sparsefuse {
namespace {

cudaError_t Result(const char* function) {
  if (test::Device().failing != function) return cudaSuccess;
  return test::Device().failing_after-- > 0 ? cudaSuccess : cudaErrorUnknown;
}

bool IsAligned(const void* pointer, size_t to) {
  return reinterpret_cast<uintptr_t>(pointer) % to == 0;
}

const LinearKernel& Reference() { return *AllLinearKernels().back(); }

}  // namespace

namespace cuda {

cudaError_t FindDevice(cuda::Device* device) noexcept {
  *device = {.major = 8, .minor = 6, .multiprocessors = 7, .share = {Room::kSmall, 1}};
  return Result("FindDevice");
}

Code::~Code() {
  if (library_) test::Device().unloaded += test::Device().allocated.empty();
}

cudaError_t Code::Load(const void* image) noexcept {
  const bool known = std::strcmp(static_cast<const char*>(image), test::kFakeCode) == 0;
  static char library;
  if (known) library_ = reinterpret_cast<cudaLibrary_t>(&library);
  return known ? Result("Load") : cudaErrorInvalidKernelImage;
}

Code::Found Code::Find(const LinearShape&, const Plan&, Activation activation, bool half) const {
  static char kernel;
  test::Device().sought_activation = activation;
  test::Device().sought_half = half;
  const auto some = reinterpret_cast<cudaKernel_t>(&kernel);
  return {{some, some, some}, 2};
}

cudaError_t SuggestWorkers(int32_t* workers) noexcept {
  *workers = 7;
  return Result("SuggestWorkers");
}

size_t PreparedBytes(const Plan& plan) noexcept { return plan.group_ptr.size() * sizeof(int32_t); }

cudaError_t Prepare(const LinearWeights& weights, const Plan& plan, std::byte* prepared,
                    cudaStream_t, Layer* layer) noexcept {
  if (test::Device().current != test::kFakeDevice) return cudaErrorInvalidDevice;
  if (!IsAligned(weights.smooth, 16) || !IsAligned(weights.blocks.quad, 16) ||
      !IsAligned(prepared, kAlignment) || weights.shape.sparse != !weights.blocks.dense()) {
    return cudaErrorMisalignedAddress;
  }
  std::memcpy(prepared, plan.group_ptr.data(), PreparedBytes(plan));
  test::Device().tile_panels = plan.shared_panels;
  test::Device().input_words = plan.input_words;
  *layer = {};
  layer->weights = weights;
  layer->group_ptr = reinterpret_cast<const int32_t*>(prepared);
  return Result("Prepare");
}

size_t WorkspaceBytes(const Layer& layer, int64_t rows) noexcept {
  return Reference().workspace_bytes(layer.weights.shape, rows);
}

cudaError_t Linear(const Layer& layer, const Run& run, cudaStream_t stream) noexcept {
  test::FakeDevice& device = test::Device();
  if (device.current != test::kFakeDevice) return cudaErrorInvalidDevice;
  if (!IsAligned(run.x, 16) || !IsAligned(run.y, 16) || !IsAligned(run.workspace, kAlignment)) {
    return cudaErrorMisalignedAddress;
  }
  const auto launch = static_cast<size_t>(device.launches++);
  if (launch < device.run_times.size()) device.clock += device.run_times[launch];
  device.rows = run.rows;
  device.half = run.half;
  device.activation = run.activation;
  device.stream = stream;
  device.made_kernels = layer.made.decode8 && layer.made.decode16 && layer.made.prefill;
  LinearWeights weights = layer.weights;
  if (weights.shape.sparse) weights.blocks.group_ptr = layer.group_ptr;
  const size_t bytes = Reference().prepared_bytes(weights) + kLinearAlignment;
  auto* prepared = static_cast<std::byte*>(std::aligned_alloc(kLinearAlignment, bytes / 64 * 64));
  Reference().prepare(weights, prepared);
  int64_t easy = 0;
  Reference().run(weights, prepared,
                  {.rows = run.rows,
                   .x = run.x,
                   .y = run.y,
                   .half = run.half,
                   .activation = run.activation,
                   .gate = run.gate,
                   .easy_rows = &easy,
                   .workspace = run.workspace,
                   .parallel = SerialLoop()});
  if (run.gate_counts && layer.weights.gate && IsGated(run.gate, run.rows)) {
    run.gate_counts->rows += static_cast<unsigned long long>(run.rows);
    run.gate_counts->easy += static_cast<unsigned long long>(easy);
  }
  std::free(prepared);
  return Result("Linear");
}

}  // namespace cuda
}  // namespace sparsefuse

using sparsefuse::Result;
using sparsefuse::test::Device;

extern "C" {

const char* cudaGetErrorString(cudaError_t) { return "a fault"; }
const char* cudaGetErrorName(cudaError_t error) {
  return error == cudaErrorUnknown ? "cudaErrorUnknown" : "another error";
}

cudaError_t cudaGetDevice(int* device) {
  *device = Device().current;
  return Result("cudaGetDevice");
}
cudaError_t cudaSetDevice(int device) {
  Device().current = device;
  return Result("cudaSetDevice");
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t) {
  if (kind != cudaMemcpyHostToDevice || bytes == 0) return cudaErrorInvalidValue;
  std::memcpy(to, from, bytes);
  return Result("cudaMemcpyAsync");
}
cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind) {
  ++Device().waits;
  if (Result("cudaMemcpy") != cudaSuccess) return cudaErrorUnknown;
  std::memcpy(to, from, bytes);
  return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t) {
  ++Device().waits;
  return Result("cudaStreamSynchronize");
}

cudaError_t cudaMalloc(void** memory, size_t bytes) {
  if (bytes >> 40 != 0 || Result("cudaMalloc") != cudaSuccess) return cudaErrorUnknown;
  const size_t whole = (bytes + 255) / 256 * 256;
  *memory = std::memset(std::aligned_alloc(256, whole), 0x5a, whole);
  Device().allocated.insert(*memory);
  return cudaSuccess;
}
cudaError_t cudaMemset(void* memory, int value, size_t bytes) {
  std::memset(memory, value, bytes);
  return Result("cudaMemset");
}
cudaError_t cudaFree(void* memory) {
  Device().allocated.erase(memory);
  std::free(memory);
  return cudaSuccess;
}

cudaError_t cudaGetDeviceCount(int* count) {
  *count = sparsefuse::test::kFakeDevice + 1;
  return Result("cudaGetDeviceCount");
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
  *properties = {};
  std::snprintf(properties->name, sizeof properties->name, "Card %d", device);
  properties->major = device == 0 ? 9 : 8;
  properties->minor = device == 0 ? 0 : 6;
  return Result("cudaGetDeviceProperties");
}

cudaError_t cudaEventCreate(cudaEvent_t* event) {
  if (Result("cudaEventCreate") != cudaSuccess) return cudaErrorUnknown;
  *event = reinterpret_cast<cudaEvent_t>(new float(-1));
  ++Device().events;
  return cudaSuccess;
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete reinterpret_cast<float*>(event);
  --Device().events;
  return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t) {
  *reinterpret_cast<float*>(event) = Device().clock;
  return Result("cudaEventRecord");
}
cudaError_t cudaEventSynchronize(cudaEvent_t) {
  ++Device().waits;
  return Result("cudaEventSynchronize");
}
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t before, cudaEvent_t after) {
  *milliseconds = *reinterpret_cast<float*>(after) - *reinterpret_cast<float*>(before);
  return Result("cudaEventElapsedTime");
}

}  // extern "C"

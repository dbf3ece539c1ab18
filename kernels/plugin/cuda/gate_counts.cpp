#include "kernels/plugin/cuda/gate_counts.h"

#include <array>
#include <mutex>

namespace sparsefuse::plugin {
namespace {

constexpr size_t kMaxDevices = 64;

std::mutex mutex;
struct DeviceCounts {
  cuda::GateCounts* on_device = nullptr;
  cuda::GateCounts last = {};  // read
};
std::array<DeviceCounts, kMaxDevices> device_counts;  // under the mutex

}  // namespace

cudaError_t FindGateCounts(cuda::GateCounts** counts) noexcept {
  int device = 0;
  if (const cudaError_t error = cudaGetDevice(&device); error != cudaSuccess) return error;
  if (device < 0 || static_cast<size_t>(device) >= kMaxDevices) return cudaErrorInvalidDevice;
  const std::lock_guard lock(mutex);
  cuda::GateCounts*& on_device = device_counts[static_cast<size_t>(device)].on_device;
  if (!on_device) {
    void* memory = nullptr;
    cudaError_t error = cudaMalloc(&memory, sizeof *on_device);
    if (error == cudaSuccess) error = cudaMemset(memory, 0, sizeof *on_device);
    // Kernels on other streams must not come before.
    if (error == cudaSuccess) error = cudaStreamSynchronize(nullptr);
    if (error != cudaSuccess) {
      cudaFree(memory);
      return error;
    }
    on_device = static_cast<cuda::GateCounts*>(memory);
  }
  *counts = on_device;
  return cudaSuccess;
}

void ReadGateCounts(int64_t* rows, int64_t* easy) noexcept {
  *rows = *easy = 0;
  const std::lock_guard lock(mutex);
  for (DeviceCounts& device : device_counts) {
    cuda::GateCounts now = {};
    // Fails while a stream is captured; then the last counts stand.
    if (device.on_device &&
        cudaMemcpy(&now, device.on_device, sizeof now, cudaMemcpyDeviceToHost) == cudaSuccess) {
      device.last = now;
    }
    *rows += static_cast<int64_t>(device.last.rows);
    *easy += static_cast<int64_t>(device.last.easy);
  }
}

}  // namespace sparsefuse::plugin

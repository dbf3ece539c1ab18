#include "kernels/plugin/cuda/gate_counts.h"

#include <array>
#include <atomic>
#include <mutex>

namespace sparsefuse::plugin {
namespace {

constexpr size_t kMaxDevices = 64;

std::atomic<int64_t> gated_rows{0};

std::mutex mutex;
struct EasyRows {
  unsigned long long* on_device = nullptr;
  unsigned long long last = 0;  // read
};
std::array<EasyRows, kMaxDevices> easy_rows;  // by device; under the mutex

}  // namespace

cudaError_t FindEasyRows(unsigned long long** count) noexcept {
  int device = 0;
  if (const cudaError_t error = cudaGetDevice(&device); error != cudaSuccess) return error;
  if (device < 0 || static_cast<size_t>(device) >= kMaxDevices) return cudaErrorInvalidDevice;
  const std::lock_guard lock(mutex);
  EasyRows& easy = easy_rows[static_cast<size_t>(device)];
  if (!easy.on_device) {
    void* memory = nullptr;
    cudaError_t error = cudaMalloc(&memory, sizeof *easy.on_device);
    if (error == cudaSuccess) error = cudaMemset(memory, 0, sizeof *easy.on_device);
    // Kernels on other streams must not come before.
    if (error == cudaSuccess) error = cudaStreamSynchronize(nullptr);
    if (error != cudaSuccess) {
      cudaFree(memory);
      return error;
    }
    easy.on_device = static_cast<unsigned long long*>(memory);
  }
  *count = easy.on_device;
  return cudaSuccess;
}

void CountGatedRows(int64_t rows) noexcept {
  gated_rows.fetch_add(rows, std::memory_order_relaxed);
}

void ReadGateCounts(int64_t* rows, int64_t* easy) noexcept {
  *rows = gated_rows.load(std::memory_order_relaxed);
  *easy = 0;
  const std::lock_guard lock(mutex);
  for (EasyRows& device : easy_rows) {
    unsigned long long now = 0;
    // Fails while a stream is captured; then the last count stands.
    if (device.on_device &&
        cudaMemcpy(&now, device.on_device, sizeof now, cudaMemcpyDeviceToHost) == cudaSuccess) {
      device.last = now;
    }
    *easy += static_cast<int64_t>(device.last);
  }
}

}  // namespace sparsefuse::plugin

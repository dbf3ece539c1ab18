// A layer in device memory under test.

#ifndef SPARSEFUSE_TESTS_CUDA_DEVICE_LAYER_H_
#define SPARSEFUSE_TESTS_CUDA_DEVICE_LAYER_H_

#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

#include "kernels/cuda/code.h"
#include "kernels/cuda/linear.h"
#include "tests/kernels/linear_case.h"

namespace sparsefuse::test {

inline void Check(cudaError_t error, const char* what) {
  if (error != cudaSuccess) {
    throw std::runtime_error(std::string(what) + ": " + cudaGetErrorString(error));
  }
}
#define SPARSEFUSE_CHECK_CUDA(call) ::sparsefuse::test::Check((call), #call)

template <typename T>
class DeviceArray {
 public:
  explicit DeviceArray(size_t count) : count_(count) {
    SPARSEFUSE_CHECK_CUDA(
        cudaMalloc(&data_, std::max<size_t>(count, 1) * sizeof(T)));  // never null
  }
  explicit DeviceArray(const std::vector<T>& from) : DeviceArray(from.size()) {
    SPARSEFUSE_CHECK_CUDA(
        cudaMemcpy(data_, from.data(), from.size() * sizeof(T), cudaMemcpyHostToDevice));
  }
  DeviceArray(const DeviceArray&) = delete;
  DeviceArray& operator=(const DeviceArray&) = delete;
  ~DeviceArray() { cudaFree(data_); }

  T* get() const { return static_cast<T*>(data_); }
  std::vector<T> Read() const {
    std::vector<T> to(count_);
    SPARSEFUSE_CHECK_CUDA(cudaMemcpy(to.data(), data_, count_ * sizeof(T), cudaMemcpyDeviceToHost));
    return to;
  }
  void Fill(int byte) { SPARSEFUSE_CHECK_CUDA(cudaMemset(data_, byte, count_ * sizeof(T))); }

 private:
  void* data_ = nullptr;
  size_t count_;
};

enum class KernelSet {
  kBest,      // that the device has
  kPortable,  // those that run everywhere: none of compute capability 9.0's, blocks in 100 KiB
};

class DeviceLayer {
 public:
  // workers: slices of work; 0: what suits the device.
  explicit DeviceLayer(const LinearLayer& layer, int32_t workers = 0,
                       KernelSet kernels = KernelSet::kBest);
  // By the kernels that were made for it; throws where one is missing.
  DeviceLayer(const LinearLayer& layer, const cuda::Code& code, Activation activation, bool half);

  // Y of `rows` rows of X; throws where the kernel wrote beyond Y. half: by way of float16.
  std::vector<float> Run(const std::vector<float>& x, int64_t rows, bool half = false,
                         Activation activation = Activation::kNone, GateMode gate = GateMode::kOff,
                         int64_t* easy_rows = nullptr) const;
  const cuda::Layer& layer() const { return layer_; }

 private:
  DeviceLayer(const LinearLayer& layer, cuda::Plan plan);

  template <typename T>
  std::vector<T> RunElements(const std::vector<T>& x, cuda::Run run, int64_t* easy_rows) const;

  LinearShape shape_;
  cuda::Plan plan_;
  DeviceArray<std::byte> packed_;
  DeviceArray<uint8_t> scale_code_;
  DeviceArray<float> bias_, smooth_, gate_;
  DeviceArray<uint16_t> quad_;
  DeviceArray<int32_t> group_ptr_;
  DeviceArray<std::byte> prepared_;
  cuda::Layer layer_{};
};

}  // namespace sparsefuse::test

#endif  // SPARSEFUSE_TESTS_CUDA_DEVICE_LAYER_H_

// What the kernels of this folder share on the device and write without instructions of PTX, so
// that the host can compile it, too: decoding, the last step.

#ifndef SPARSEFUSE_KERNELS_CUDA_COMMON_CUH_
#define SPARSEFUSE_KERNELS_CUDA_COMMON_CUH_

#include <cuda_fp16.h>

#include <cstdint>

#include "kernels/cuda/job.h"

namespace sparsefuse::cuda {

inline constexpr int kWarp = 32;

// --- Launches that overlap ---

__device__ inline void LetNextLaunchStart() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}
// Until all that earlier launches wrote can be read.
__device__ inline void WaitForEarlierLaunch() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

// --- Four weights a word ---
//
// Nibbles of outputs r (low) and r + 16 (high) lie in one byte.

__device__ inline uint32_t LowNibbles16(uint32_t w) { return w << 4 & 0xf0f0f0f0u; }  // 16·n
__device__ inline uint32_t HighNibbles16(uint32_t w) { return w & 0xf0f0f0f0u; }

// Nested1: 16·h + l, l unsigned.
__device__ inline uint32_t LowNested1(uint32_t h, uint32_t l) {
  return (h << 4 & 0xf0f0f0f0u) | (l & 0x0f0f0f0fu);
}
__device__ inline uint32_t HighNested1(uint32_t h, uint32_t l) {
  return (h & 0xf0f0f0f0u) | (l >> 4 & 0x0f0f0f0fu);
}
// Nested4: 4·h + l, both signed, from nibbles + 8 each: 0 … 75, less 40.
__device__ inline uint32_t Nested4(uint32_t h, uint32_t l) {
  const uint32_t high = (h ^ 0x88888888u) & 0x0f0f0f0fu, low = (l ^ 0x88888888u) & 0x0f0f0f0fu;
  return (4 * high + low + 0x58585858u) ^ 0x80808080u;
}

// A sum of products: those of int4 are 16 times too large.
template <Encoding kEncoding>
__device__ int32_t Unscaled(int32_t sum) {
  return kEncoding == Encoding::kInt4 ? sum >> 4 : sum;
}

template <typename Decode>
__device__ inline uint4 ForWords(const uint4& a, Decode decode) {
  return {decode(a.x), decode(a.y), decode(a.z), decode(a.w)};
}
template <typename Decode>
__device__ inline uint4 ForWords(const uint4& a, const uint4& b, Decode decode) {
  return {decode(a.x, b.x), decode(a.y, b.y), decode(a.z, b.z), decode(a.w, b.w)};
}

// --- The last step ---

__device__ inline float ActivateOnDevice(Activation activation, float v) {
  switch (activation) {
    case Activation::kRelu:
      return v > 0 || v != v ? v : 0.0f;
    case Activation::kGelu:
      return 0.5f * v * (1.0f + erff(v * 0.70710678118654752f));
    case Activation::kGeluTanh:
      return 0.5f * v * (1.0f + tanhf(0.79788456080286536f * (v + 0.044715f * v * v * v)));
    case Activation::kSilu:
      return v / (1.0f + expf(-v));
    default:
      return v;
  }
}

__device__ inline void Store(const Job& job, int64_t at, float v) {
  if (job.half) {
    static_cast<__half*>(job.y)[at] = __float2half_rn(v);
  } else {
    static_cast<float*>(job.y)[at] = v;
  }
}

}  // namespace sparsefuse::cuda

#endif  // SPARSEFUSE_KERNELS_CUDA_COMMON_CUH_

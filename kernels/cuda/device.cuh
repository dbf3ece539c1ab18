// What the kernels of this folder share of PTX's instructions: copies, barriers, products; and
// how a tile of results is written.

#ifndef SPARSEFUSE_KERNELS_CUDA_DEVICE_CUH_
#define SPARSEFUSE_KERNELS_CUDA_DEVICE_CUH_

#include <cstdint>
#include <type_traits>

#include "kernels/cuda/common.cuh"

namespace sparsefuse::cuda {

// The address that instructions for shared memory take.
__device__ inline uint32_t SharedAddress(const void* shared) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(shared));
}

// --- Copies from global to shared memory ---

// Read once: not worth a place in the first-level cache.
__device__ inline void CopyAsync16(void* shared, const void* global) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(SharedAddress(shared)), "l"(global)
               : "memory");
}
__device__ inline void CopyAsync4(void* shared, const void* global) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(SharedAddress(shared)), "l"(global)
               : "memory");
}
// Copies 16 bytes, or none and writes zeros.
__device__ inline void CopyAsync16OrZero(void* shared, const void* global, bool copy) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(SharedAddress(shared)),
               "l"(global), "r"(copy ? 16 : 0)
               : "memory");
}
__device__ inline void CopyAsync4OrZero(void* shared, const void* global, bool copy) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(SharedAddress(shared)),
               "l"(global), "r"(copy ? 4 : 0)
               : "memory");
}
__device__ inline void CommitCopies() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int kPending>
__device__ inline void WaitForCopies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}

// --- Barriers in shared memory of which one side only arrives ---

using Barrier = uint64_t;

__device__ inline void InitBarrier(Barrier* barrier, int arrivals) {
  asm volatile("mbarrier.init.shared.b64 [%0], %1;" ::"r"(SharedAddress(barrier)), "r"(arrivals)
               : "memory");
}
__device__ inline void Arrive(Barrier* barrier) {
  [[maybe_unused]] uint64_t state;
  asm volatile("mbarrier.arrive.shared.b64 %0, [%1];"
               : "=l"(state)
               : "r"(SharedAddress(barrier))
               : "memory");
}
// Until the phase of this parity (0 for the first) is complete.
__device__ inline void WaitFor(Barrier* barrier, int parity) {
  uint32_t done;
  do {
    asm volatile(
        "{\n .reg .pred p;\n mbarrier.test_wait.parity.shared.b64 p, [%1], %2;\n"
        " selp.u32 %0, 1, 0, p;\n}"
        : "=r"(done)
        : "r"(SharedAddress(barrier)), "r"(parity)
        : "memory");
  } while (!done);
}

// --- Products ---

// sum[16 outputs × 8 rows] += a[16 × 32 inputs] · b[32 × 8], 8-bit integers, exact.
__device__ inline void MultiplyAdd(int32_t (&sum)[4], uint32_t a0, uint32_t a1, uint32_t a2,
                                   uint32_t a3, uint32_t b0, uint32_t b1) {
  asm("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};"
      : "+r"(sum[0]), "+r"(sum[1]), "+r"(sum[2]), "+r"(sum[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

// The same over a group's 64 inputs: `upper` are outputs g, `lower` outputs g + 8 of the 16
// (g = lane / 4), b row g of the activations, each quads 4t … 4t + 3 (t = lane mod 4).
__device__ inline void MultiplyAddGroup(int32_t (&sum)[4], const uint4& upper, const uint4& lower,
                                        const uint4& b) {
  MultiplyAdd(sum, upper.x, lower.x, upper.y, lower.y, b.x, b.y);
  MultiplyAdd(sum, upper.z, lower.z, upper.w, lower.w, b.z, b.w);
}

// --- Tiles of many rows ---

// A block's tile of sums in shared memory, as words: row r at r · kTileStride, an output a word.
template <int kPanels>
constexpr int kTileStride = kPanels* kPanelOutputs + 4;  // 4 more, so that no bank is hit twice

// Scales, adds the bias, activates and writes a tile of kPanels · 32 outputs × `rows` rows, whose
// first are `panel` and `row`; a warp a row, a thread kPanels neighbouring outputs. rows ≤ 32 ·
// warps.
template <int kPanels, typename Value>
__device__ void WriteTile(const Job& job, const Value* tile, int32_t panel, int64_t row, int rows,
                          int warp, int warps) {
  static_assert(kPanels == 1 || kPanels == 2 || kPanels == 4);
  const int lane = threadIdx.x % kWarp;
  const int64_t first = int64_t{panel} * kPanelOutputs + lane * kPanels;
  const int exist = static_cast<int>(max(min(job.outputs - first, int64_t{kPanels}), int64_t{0}));
  float scale[kPanels], bias[kPanels];
#pragma unroll
  for (int i = 0; i < kPanels; ++i) {
    const int32_t of = panel + (lane * kPanels + i) / static_cast<int>(kPanelOutputs);
    const int64_t at = int64_t{i < exist ? job.scale_ptr[of] : 0} * kPanelOutputs;
    scale[i] = std::is_floating_point_v<Value> || i >= exist  // floats have theirs already
                   ? 1.0f
                   : job.scale[at + (lane * kPanels + i) % static_cast<int>(kPanelOutputs)];
    bias[i] = i < exist ? job.bias[first + i] : 0.0f;
  }
  const bool whole = exist == kPanels && job.outputs % kPanels == 0;
  const int of_lane = warp + lane * warps;  // the row whose scale this thread keeps
  const float kept_scale = of_lane < rows ? job.row_scale[row + of_lane] : 0.0f;
#pragma unroll 4
  for (int r = warp; r < rows; r += warps) {
    const float row_scale = __shfl_sync(~0u, kept_scale, r / warps);
    const Value* from = tile + r * kTileStride<kPanels> + lane * kPanels;
    float v[kPanels];
#pragma unroll
    for (int i = 0; i < kPanels; ++i) {
      v[i] = row_scale * (scale[i] * static_cast<float>(from[i])) + bias[i];
      v[i] = ActivateOnDevice(job.activation, v[i]);
    }
    const int64_t at = (row + r) * job.outputs + first;
    if (!whole) {
      for (int i = 0; i < exist; ++i) Store(job, at + i, v[i]);
    } else if (job.half) {
      alignas(8) __half h[kPanels];
#pragma unroll
      for (int i = 0; i < kPanels; ++i) h[i] = __float2half_rn(v[i]);
      auto* to = static_cast<__half*>(job.y) + at;
      if constexpr (kPanels == 4) *reinterpret_cast<uint2*>(to) = *reinterpret_cast<uint2*>(h);
      if constexpr (kPanels == 2)
        *reinterpret_cast<uint32_t*>(to) = *reinterpret_cast<uint32_t*>(h);
      if constexpr (kPanels == 1) *to = h[0];
    } else {
      auto* to = static_cast<float*>(job.y) + at;
      if constexpr (kPanels == 4) *reinterpret_cast<float4*>(to) = {v[0], v[1], v[2], v[3]};
      if constexpr (kPanels == 2) *reinterpret_cast<float2*>(to) = {v[0], v[1]};
      if constexpr (kPanels == 1) *to = v[0];
    }
  }
}

}  // namespace sparsefuse::cuda

#endif  // SPARSEFUSE_KERNELS_CUDA_DEVICE_CUH_

// What the kernels of this folder share: products of a group, and how a tile of results is written.

#ifndef SPARSEFUSE_KERNELS_CUDA_DEVICE_CUH_
#define SPARSEFUSE_KERNELS_CUDA_DEVICE_CUH_

#include <cstdint>
#include <type_traits>

#include "kernels/cuda/common.cuh"
#include "kernels/cuda/ptx.cuh"

namespace sparsefuse::cuda {

// MultiplyAdd over a group's 64 inputs: `upper` are outputs g, `lower` outputs g + 8 of the 16
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

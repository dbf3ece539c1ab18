// Many rows on compute capability 9.0: the product of prefill.cu by the instructions of that
// generation, which read the activations from shared memory themselves, a warp group (4 warps) at a
// time. Weights stay packed until a warp has its 16 outputs in registers.
//
// A warp group multiplies 64 outputs (2 panels) by 128 rows of X at a time, each of its warps 16 of
// the outputs. Two groups share a tile:
//
// clang-format off
//           Wide                 Scaled                Narrow
//    ┌──────────────────┐    ┌──────────┐    ┌──────────┬──────────┐   Wide    4 panels, 256 rows
//    │     group 0      │    │ group 0  │    │ group 0  │ group 1  │   Scaled  4 panels, 128 rows, with
//    ├──────────────────┤    ├──────────┤    └──────────┴──────────┘           several rows of scales
//    │     group 1      │    │ group 1  │                              Narrow  2 panels, 256 rows
//    └──────────────────┘    └──────────┘
// clang-format on
//
// A thread of a third group has both operands copied: a group of a panel is one piece of memory,
// and so are 256 rows × 64 inputs of tiled codes (quantize.h), whose order is that in which a
// thread meets the weights of layout 1.

#ifndef SPARSEFUSE_KERNELS_CUDA_PREFILL_SM90_CUH_
#define SPARSEFUSE_KERNELS_CUDA_PREFILL_SM90_CUH_

#include <algorithm>

#include "kernels/cuda/device.cuh"
#include "kernels/cuda/ptx_sm90.cuh"
#include "kernels/cuda/quantize.h"

namespace sparsefuse::cuda::prefill_sm90 {

constexpr int kWarps = 8, kThreads = (kWarps + 4) * kWarp;  // and the group that copies
constexpr int kHalfRows = 128, kHalfBytes = kHalfRows * kGroupInputs;
constexpr int kStages = 8;
constexpr int kAlign = 1024;                            // of the first stage
constexpr int kMostGroups = kMaxInputs / kGroupInputs;  // of a panel

template <int kPanels_, int kGroupHalves_, bool kManyScales_>
struct Tile {
  static constexpr int kPanels = kPanels_;
  static constexpr int kGroupHalves = kGroupHalves_;  // of 128 rows, of a warp group
  static constexpr bool kManyScales = kManyScales_;
  static constexpr int kHalves = kPanels == 4 ? kGroupHalves : 2;
  static constexpr int kRows = kHalves * kHalfRows;
};
using Wide = Tile<4, 2, false>;
using Scaled = Tile<4, 1, true>;
using Narrow = Tile<2, 1, false>;

template <Encoding kEncoding, typename T>
constexpr int kStageBytes =
    T::kPanels* static_cast<int>(GroupBytes(kEncoding)) + T::kHalves* kHalfBytes;

struct Barriers {
  Barrier full[kStages], empty[kStages];
};
// Barriers, and which inputs a sparse panel's groups hold, in units of 64.
struct Header {
  Barriers barriers;
  uint16_t run[kMostGroups];
};
constexpr int kHeaderBytes = (sizeof(Header) + kAlign - 1) / kAlign * kAlign;

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

// A thread's weights of one group: outputs g and g + 8 of its warp's 16 (g = lane / 4), quads
// 4t … 4t + 3 (t = lane mod 4).
struct Pair {
  uint4 upper, lower;
};

// half: which 16 of the panel's outputs.
template <Encoding kEncoding>
__device__ Pair ReadWeights(const uint8_t* panel, int half, int lane) {
  const auto* from = reinterpret_cast<const uint4*>(panel) + lane;
  if constexpr (kEncoding == Encoding::kInt8) {
    return {from[half * 2 * kWarp], from[(half * 2 + 1) * kWarp]};
  } else {
    const uint4 h0 = from[0], h1 = from[kWarp];
    const int shift = half * 4;
    if constexpr (kEncoding == Encoding::kInt4) {
      const auto decode = [shift](uint32_t w) { return LowNibbles16(w >> shift); };
      return {ForWords(h0, decode), ForWords(h1, decode)};
    } else {
      const uint4 l0 = from[2 * kWarp], l1 = from[3 * kWarp];
      const auto decode = [shift](uint32_t h, uint32_t l) {
        return kEncoding == Encoding::kNested1 ? LowNested1(h >> shift, l >> shift)
                                               : Nested4(h >> shift, l >> shift);
      };
      return {ForWords(h0, l0, decode), ForWords(h1, l1, decode)};
    }
  }
}

// A tile's place.
struct Place {
  int32_t panel, groups;  // the first panel; how many groups each of them has
  int64_t row;
};

template <Encoding kEncoding, typename T>
__device__ void CopyStages(const Job& job, uint8_t* ring, Header& header, const Place& place) {
  constexpr int kPlane = static_cast<int>(PlaneBytes(kEncoding));
  constexpr int kPlanes = IsNested(kEncoding) ? 2 : 1;
  constexpr int kTileBytes = kTileRowsSm90 * kGroupInputs;
  const uint8_t* weights[T::kPanels];
#pragma unroll
  for (int p = 0; p < T::kPanels; ++p) {  // panels that do not exist: the last one again
    const int32_t of = min(place.panel + p, job.panels - 1);
    weights[p] = job.weight + int64_t{job.group_ptr[of]} * kPlane;
  }
  const int8_t* rows = job.codes + place.row / kTileRowsSm90 * kTileRowsSm90 * job.codes_stride +
                       place.row % kTileRowsSm90 * kGroupInputs;
  for (int32_t i = 0; i < place.groups; ++i) {
    const int stage = i % kStages;
    if (i >= kStages) WaitFor(&header.barriers.empty[stage], i / kStages % 2 ^ 1);
    Barrier* const full = &header.barriers.full[stage];
    uint8_t* to = ring + stage * kStageBytes<kEncoding, T>;
    ArriveAndExpect(full, kStageBytes<kEncoding, T>);
#pragma unroll
    for (int p = 0; p < T::kPanels; ++p) {
#pragma unroll
      for (int plane = 0; plane < kPlanes; ++plane) {
        CopyBulk(to, weights[p] + plane * job.plane_bytes + int64_t{i} * kPlane, kPlane, full);
        to += kPlane;
      }
    }
    const int32_t run = job.quad ? header.run[i] : i;
    CopyBulk(to, rows + int64_t{run} * kTileBytes, T::kHalves * kHalfBytes, full);
  }
}

template <Encoding kEncoding, typename T>
__device__ void Multiply(const Job& job, uint8_t* ring, Barriers& barriers, const Place& place) {
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp, warp_group = warp / 4;
  const int first_half = T::kPanels == 4 ? 0 : warp_group;
  const int eighth = T::kPanels == 4 ? warp : warp % 4;  // of 16 outputs
  using Value = std::conditional_t<T::kManyScales, float, int32_t>;
  int32_t sum[T::kGroupHalves][kPart];
  [[maybe_unused]] Value result[T::kManyScales ? kPart : 1] = {};
#pragma unroll
  for (int i = 0; i < T::kGroupHalves * kPart; ++i) sum[i / kPart][i % kPart] = 0;
  const int32_t of_panel = min(place.panel + eighth / 2, job.panels - 1);
  [[maybe_unused]] const float* scale =
      job.scale + int64_t{job.scale_ptr[of_panel]} * kPanelOutputs + eighth % 2 * 16 + lane / 4;

  const auto step = [&](int32_t group, Pair& w) {
    const int at = group % kStages;
    const uint8_t* stage = ring + at * kStageBytes<kEncoding, T>;
    WaitFor(&barriers.full[at], group / kStages % 2);
    w = ReadWeights<kEncoding>(stage + eighth / 2 * GroupBytes(kEncoding), eighth % 2, lane);
    const uint64_t b =
        Describe(stage + T::kPanels * GroupBytes(kEncoding) + first_half * kHalfBytes);
    constexpr uint64_t kNextInputs = 32 >> 4, kNextHalf = kHalfBytes >> 4;
    BeginProducts();
#pragma unroll
    for (int h = 0; h < T::kGroupHalves; ++h) {
      MultiplyAddAsync(sum[h], w.upper.x, w.lower.x, w.upper.y, w.lower.y, b + h * kNextHalf);
    }
#pragma unroll
    for (int h = 0; h < T::kGroupHalves; ++h) {
      MultiplyAddAsync(sum[h], w.upper.z, w.lower.z, w.upper.w, w.lower.w,
                       b + h * kNextHalf + kNextInputs);
    }
    CommitProducts();
    // Of large products one may be under way while the next is prepared; between small ones the
    // other warp group has its turn.
    constexpr int kPending = T::kGroupHalves - 1;
    WaitForProducts<kPending>();
    const int32_t done = group - kPending;
    if (done >= 0 && lane == 0) Arrive(&barriers.empty[done % kStages]);
    if constexpr (T::kManyScales) {
      if ((group + 1) % job.groups_per_scale != 0 && group + 1 < place.groups) return;
      const float of_row[2] = {scale[0], scale[8]};
#pragma unroll
      for (int i = 0; i < kPart; ++i) {
        result[i] += of_row[i % 4 / 2] * static_cast<float>(Unscaled<kEncoding>(sum[0][i]));
        sum[0][i] = 0;
      }
      scale += kPanelOutputs;
    }
  };
  // Two sets of weights: products still read the ones of the group before.
  Pair even, odd;
  for (int32_t group = 0; group < place.groups; group += 2) {
    step(group, even);
    if (group + 1 < place.groups) step(group + 1, odd);
  }
  WaitForProducts<0>();
  SyncFirstWarps<kWarps>();

  // The tile takes the stages' place, turned round, so that whole rows of outputs are written.
  auto* const turned = reinterpret_cast<Value*>(ring);
#pragma unroll
  for (int i = 0; i < T::kGroupHalves * kPart; ++i) {
    const int row = first_half * kHalfRows + i / 4 * 8 + lane % 4 * 2 + i % 2;
    const int output = eighth * 16 + i % 4 / 2 * 8 + lane / 4;
    Value value;
    if constexpr (T::kManyScales) {
      value = result[i];
    } else {
      value = Unscaled<kEncoding>(sum[i / kPart][i % kPart]);
    }
    turned[row * kTileStride<T::kPanels> + output] = value;
  }
  SyncFirstWarps<kWarps>();
  const auto rows = static_cast<int>(min(int64_t{T::kRows}, job.rows - place.row));
  WriteTile<T::kPanels>(job, turned, place.panel, place.row, rows, warp, kWarps);
}

template <Encoding kEncoding, typename T>
__device__ void Product(const Job& job) {
  extern __shared__ __align__(kAlign) uint4 memory[];
  auto* const shared = reinterpret_cast<uint8_t*>(memory);
  LetNextLaunchStart();
  auto& header = *reinterpret_cast<Header*>(shared);
  uint8_t* const ring = shared + kHeaderBytes;
  const int64_t row_tiles = (job.rows + T::kRows - 1) / T::kRows;
  const int32_t panel = job.tile_order[blockIdx.x / row_tiles] * T::kPanels;
  const int32_t first_group = job.group_ptr[panel];
  const Place place = {.panel = panel,
                       .groups = job.group_ptr[panel + 1] - first_group,
                       .row = blockIdx.x % row_tiles * T::kRows};
  if (threadIdx.x == 0) {
    for (int s = 0; s < kStages; ++s) {
      InitBarrier(&header.barriers.full[s], 1);
      InitBarrier(&header.barriers.empty[s], kWarps);
    }
    ShowBarriers();
  }
  if (job.quad) {
    for (int32_t i = threadIdx.x; i < place.groups; i += kThreads) {
      header.run[i] = job.quad[int64_t{first_group + i} * kGroupQuads] / kGroupQuads;
    }
  }
  __syncthreads();
  WaitForEarlierLaunch();
  // Registers go from the threads that copy to those that multiply.
  if (threadIdx.x >= kWarps * kWarp) {
    LowerRegisters<40>();
    if (threadIdx.x == kWarps * kWarp) CopyStages<kEncoding, T>(job, ring, header, place);
  } else {
    RaiseRegisters<232>();
    Multiply<kEncoding, T>(job, ring, header.barriers, place);
  }
}

#endif  // __CUDA_ARCH_FEAT_SM90_ALL

template <Encoding kEncoding, typename T>
constexpr int kSharedOf = kHeaderBytes + std::max(kStages* kStageBytes<kEncoding, T>,
                                                  T::kRows* kTileStride<T::kPanels> * 4);

}  // namespace sparsefuse::cuda::prefill_sm90

#endif  // SPARSEFUSE_KERNELS_CUDA_PREFILL_SM90_CUH_

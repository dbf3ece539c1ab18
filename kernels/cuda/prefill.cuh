// Many rows: a matrix product bound by the tensor cores. A block of threads computes a tile of
// outputs × rows; both operands pass through shared memory in a ring of stages, a stage a group of
// 64 inputs. Weights keep their packed form until a warp has them in registers.
//
// clang-format off
//           rows of X              Tile          panels   rows   for
//    ┌────┬────┬────┬────┐         Wide          2 × 2    256    4 panels that share inputs
//    │ w0 │ w1 │ w2 │ w3 │         Narrow        2        256    2 panels that do
//    ├────┼────┼────┼────┤         Single        1        256    1 panel, any quads
//    │ w4 │ w5 │ w6 │ w7 │         ScaledWide    2 × 2    128    4, with several rows of scales
//    └────┴────┴────┴────┘         ScaledSingle  1        128    1, with several rows of scales
//    2 warps × their panels
// clang-format on

#ifndef SPARSEFUSE_KERNELS_CUDA_PREFILL_CUH_
#define SPARSEFUSE_KERNELS_CUDA_PREFILL_CUH_

#include <algorithm>

#include "kernels/cuda/device.cuh"

namespace sparsefuse::cuda::prefill {

constexpr int kRowWarps = 4;
constexpr int kStages = 4;
constexpr int kTurnedRows = 128;  // of a tile, on the way out

template <int kWarpPanels_, int kPanelWarps_, int kRowTiles_, bool kManyScales_>
struct Tile {
  static constexpr int kWarpPanels = kWarpPanels_;  // of a warp
  static constexpr int kPanelWarps = kPanelWarps_;
  static constexpr int kRowTiles = kRowTiles_;  // of 8 rows, of a warp
  static constexpr bool kManyScales = kManyScales_;
  static constexpr int kPanels = kWarpPanels * kPanelWarps;
  static constexpr int kRows = kRowWarps * kRowTiles * 8;
  static constexpr int kThreads = kPanelWarps * kRowWarps * kWarp;
  static constexpr int kRowBytes = kRows * kGroupInputs;
};
using Wide = Tile<2, 2, 8, false>;
using Narrow = Tile<2, 1, 8, false>;
using Single = Tile<1, 1, 8, false>;
using ScaledWide = Tile<2, 2, 4, true>;
using ScaledSingle = Tile<1, 1, 4, true>;

template <Encoding kEncoding, typename T>
constexpr int kStageBytes = T::kPanels* static_cast<int>(GroupBytes(kEncoding)) + T::kRowBytes;

// Copies a group's weights and activations into stages.
template <Encoding kEncoding, typename T, bool kGather>
class Copier {
 public:
  __device__ Copier(const Job& job, int32_t panel, int64_t row)
      : job_(job), panel_(panel), row_(row), first_(job.group_ptr[panel]) {
    end_ = job.group_ptr[panel + 1];
    next_ = first_;
    quad_ = Quad(next_);
  }
  __device__ int32_t groups() const { return end_ - first_; }

  // The next group, if there is one, into `stage`.
  __device__ void Copy(uint8_t* stage) {
    if (next_ < end_) {
      CopyWeights(stage);
      CopyRows(stage + T::kPanels * GroupBytes(kEncoding));
      ++next_;
      quad_ = Quad(next_);
    }
    CommitCopies();
  }

 private:
  // What this thread needs to know of a group: its own quad, or the first one of the run.
  __device__ int32_t Quad(int32_t group) const {
    if (!job_.quad) return (group - first_) * kGroupQuads;
    if (group >= end_) return 0;
    return job_.quad[int64_t{group} * kGroupQuads + (kGather ? threadIdx.x % kGroupQuads : 0)];
  }

  __device__ void CopyWeights(uint8_t* to) const {
    constexpr int kPieces = static_cast<int>(PlaneBytes(kEncoding)) / 16;  // of a panel's plane
    constexpr int kPlanes = IsNested(kEncoding) ? 2 : 1;
#pragma unroll
    for (int i = threadIdx.x; i < T::kPanels * kPlanes * kPieces; i += T::kThreads) {
      const int panel = i / (kPlanes * kPieces), plane = i / kPieces % kPlanes;
      if (panel_ + panel >= job_.panels) continue;
      const int64_t group = job_.group_ptr[panel_ + panel] + (next_ - first_);
      CopyAsync16(to + i * 16, job_.weight + plane * job_.plane_bytes +
                                   group * PlaneBytes(kEncoding) + i % kPieces * 16);
    }
  }

  __device__ void CopyRows(uint8_t* to) const {
    if constexpr (kGather) {
      const int quad = threadIdx.x % kGroupQuads;
#pragma unroll 8
      for (int r = threadIdx.x / kGroupQuads; r < T::kRows; r += T::kThreads / kGroupQuads) {
        const bool exists = row_ + r < job_.rows;
        const int64_t row = exists ? row_ + r : 0;
        CopyAsync4OrZero(to + r * kGroupInputs + quad * 4,
                         job_.codes + row * job_.codes_stride + quad_ * 4, exists);
      }
    } else {
#pragma unroll
      for (int i = threadIdx.x; i < T::kRows * 4; i += T::kThreads) {
        const bool exists = row_ + i / 4 < job_.rows;
        const int64_t row = exists ? row_ + i / 4 : 0;
        CopyAsync16OrZero(to + i * 16,
                          job_.codes + row * job_.codes_stride + quad_ * 4 + i % 4 * 16, exists);
      }
    }
  }

  const Job& job_;
  int32_t panel_;
  int64_t row_;
  int32_t first_, end_, next_, quad_;
};

// A panel's group of weights in the registers of a warp: eighths of its outputs.
template <Encoding kEncoding>
__device__ void ReadWeights(const uint8_t* panel, int lane, uint4 (&w)[4]) {
  const auto* from = reinterpret_cast<const uint4*>(panel) + lane;
  if constexpr (kEncoding == Encoding::kInt8) {
#pragma unroll
    for (int i = 0; i < 4; ++i) w[i] = from[i * kWarp];
  } else {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const uint4 h = from[i * kWarp];
      if constexpr (kEncoding == Encoding::kInt4) {
        w[i] = ForWords(h, LowNibbles16);
        w[i + 2] = ForWords(h, HighNibbles16);
      } else {
        const uint4 l = from[(2 + i) * kWarp];
        if constexpr (kEncoding == Encoding::kNested1) {
          w[i] = ForWords(h, l, LowNested1);
          w[i + 2] = ForWords(h, l, HighNested1);
        } else {
          w[i] = ForWords(h, l, Nested4);
          w[i + 2] = ForWords(h, l, [](uint32_t a, uint32_t b) { return Nested4(a >> 4, b >> 4); });
        }
      }
    }
  }
}

template <Encoding kEncoding, typename T>
constexpr int kSharedOf = std::max(kStages* kStageBytes<kEncoding, T>,
                                   kTurnedRows* kTileStride<T::kPanels> * 4);

// A block's tile, in kSharedOf bytes of shared memory.
template <Encoding kEncoding, typename T, bool kGather>
__device__ void Product(const Job& job) {
  extern __shared__ uint4 shared[];
  auto* const ring = reinterpret_cast<uint8_t*>(shared);
  constexpr int kStage = kStageBytes<kEncoding, T>;
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  const int panel_warp = warp / kRowWarps, row_warp = warp % kRowWarps;
  const int64_t row_tiles = (job.rows + T::kRows - 1) / T::kRows;
  const int32_t tile = job.tile_order[blockIdx.x / row_tiles];
  const int32_t first_panel = tile * T::kPanels;
  const int64_t first_row = blockIdx.x % row_tiles * T::kRows;

  Copier<kEncoding, T, kGather> copier(job, first_panel, first_row);
  for (int s = 0; s < kStages - 1; ++s) copier.Copy(ring + s * kStage);

  using Value = std::conditional_t<T::kManyScales, float, int32_t>;
  int32_t sum[T::kWarpPanels][2][T::kRowTiles][4] = {};
  Value result[T::kManyScales ? T::kWarpPanels : 1][2][T::kRowTiles][4] = {};
  const int32_t groups = copier.groups();
  [[maybe_unused]] int32_t until_scale = job.groups_per_scale, scale_row = 0;
  for (int32_t group = 0; group < groups; ++group) {
    WaitForCopies<kStages - 2>();
    __syncthreads();
    copier.Copy(ring + (group + kStages - 1) % kStages * kStage);
    const uint8_t* stage = ring + group % kStages * kStage;
    uint4 w[T::kWarpPanels][4];
#pragma unroll
    for (int p = 0; p < T::kWarpPanels; ++p) {
      ReadWeights<kEncoding>(stage + (panel_warp * T::kWarpPanels + p) * GroupBytes(kEncoding),
                             lane, w[p]);
    }
    const auto* rows = reinterpret_cast<const uint4*>(stage + T::kPanels * GroupBytes(kEncoding)) +
                       row_warp * T::kRowTiles * kWarp + lane;
#pragma unroll
    for (int r = 0; r < T::kRowTiles; ++r) {
      // Both halves of the inputs in turn, so that products in a row are of different sums.
      const uint4 b = rows[r * kWarp];
#pragma unroll
      for (int i = 0; i < 2 * T::kWarpPanels; ++i) {
        const uint4 &upper = w[i / 2][i % 2 * 2], &lower = w[i / 2][i % 2 * 2 + 1];
        MultiplyAdd(sum[i / 2][i % 2][r], upper.x, lower.x, upper.y, lower.y, b.x, b.y);
      }
#pragma unroll
      for (int i = 0; i < 2 * T::kWarpPanels; ++i) {
        const uint4 &upper = w[i / 2][i % 2 * 2], &lower = w[i / 2][i % 2 * 2 + 1];
        MultiplyAdd(sum[i / 2][i % 2][r], upper.z, lower.z, upper.w, lower.w, b.z, b.w);
      }
    }
    if constexpr (T::kManyScales) {
      if (--until_scale > 0 && group + 1 < groups) continue;
      until_scale = job.groups_per_scale;
#pragma unroll
      for (int p = 0; p < T::kWarpPanels; ++p) {
        const int32_t panel = first_panel + panel_warp * T::kWarpPanels + p;
        if (panel >= job.panels) continue;
        const float* row =
            job.scale + int64_t{job.scale_ptr[panel] + scale_row} * kPanelOutputs + lane / 4;
#pragma unroll
        for (int i = 0; i < 8 * T::kRowTiles; ++i) {
          const int half = i / (4 * T::kRowTiles), r = i / 4 % T::kRowTiles;
          int32_t& t = sum[p][half][r][i % 4];
          result[p][half][r][i % 4] +=
              row[half * 16 + i % 4 / 2 * 8] * static_cast<float>(Unscaled<kEncoding>(t));
          t = 0;
        }
      }
      ++scale_row;
    }
  }
  // The stages are done with: the tile takes their place, turned round, so that whole rows of
  // outputs are written.
  WaitForCopies<0>();
  __syncthreads();
  auto* const turned = reinterpret_cast<Value*>(shared);
  for (int part = 0; part < T::kRows / kTurnedRows; ++part) {
    if (row_warp * T::kRowTiles * 8 / kTurnedRows == part) {
#pragma unroll
      for (int i = 0; i < 8 * T::kRowTiles * T::kWarpPanels; ++i) {
        const int p = i / (8 * T::kRowTiles), half = i / (4 * T::kRowTiles) % 2;
        const int tile_of_rows = i / 4 % T::kRowTiles;
        const int row = (row_warp * T::kRowTiles + tile_of_rows) * 8 + lane % 4 * 2 + i % 2;
        const int output = (panel_warp * T::kWarpPanels + p) * static_cast<int>(kPanelOutputs) +
                           half * 16 + i % 4 / 2 * 8 + lane / 4;
        Value value;
        if constexpr (T::kManyScales) {
          value = result[p][half][tile_of_rows][i % 4];
        } else {
          value = Unscaled<kEncoding>(sum[p][half][tile_of_rows][i % 4]);
        }
        turned[row % kTurnedRows * kTileStride<T::kPanels> + output] = value;
      }
    }
    __syncthreads();
    const int64_t row = first_row + part * kTurnedRows;
    WriteTile<T::kPanels>(job, turned, first_panel, row,
                          static_cast<int>(min(int64_t{kTurnedRows}, job.rows - row)), warp,
                          T::kThreads / kWarp);
    __syncthreads();
  }
}

}  // namespace sparsefuse::cuda::prefill

#endif  // SPARSEFUSE_KERNELS_CUDA_PREFILL_CUH_

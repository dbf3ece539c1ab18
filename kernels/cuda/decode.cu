// Few rows: bound by the memory that the weights stream from. Every warp works through its slice of
// the stored groups alone: each thread copies, ahead of time, just the bytes that it will multiply,
// so that no barrier is needed. See plan.h for the slices.

#include "kernels/cuda/device.cuh"

namespace sparsefuse::cuda {
namespace {

constexpr int kWarpsPerBlock = 4;
constexpr int kBlocksPerMultiprocessor = 3;
constexpr int kStages = 6;
constexpr int kTileRows = 8;

__host__ __device__ constexpr int PlaneLoads(Encoding encoding) {  // of 16 bytes, a thread and group
  return encoding == Encoding::kInt8 ? 4 : 2;
}
__host__ __device__ constexpr int WeightLoads(Encoding encoding) {
  return PlaneLoads(encoding) * (IsNested(encoding) ? 2 : 1);
}
template <Encoding kEncoding, int kTiles>
constexpr int kStageWords = (WeightLoads(kEncoding) + kTiles) * kWarp;  // of 16 bytes

// A warp's ring of stages, one group each: weights, then activations, as its threads want them.
template <Encoding kEncoding, int kTiles>
class Stream {
 public:
  // Groups `group` to `end`, the first one being the place-th of its panel. lows: whether the low
  // parts of nested weights are wanted.
  __device__ Stream(const Job& job, uint4* ring, int32_t group, int32_t end, int32_t place,
                    bool gathers, bool lows)
      : job_(job),
        ring_(ring),
        next_(group),
        end_(end),
        place_(place),
        lane_(threadIdx.x % kWarp),
        gathers_(gathers),
        lows_(lows) {
    // Rows that do not exist stay zero.
    for (int tile = 0; tile < kTiles; ++tile) {
      if (Row(tile) >= job.rows) {
        for (int s = 0; s < kStages; ++s) *Activations(s, tile) = {0, 0, 0, 0};
      }
    }
    for (int s = 0; s < kStages - 1; ++s) {
      if (next_ + s < end_) CopyWeights(s, next_ + s);
    }
    quads_ = Quads(next_);
    WaitForEarlierLaunch();
    for (int s = 0; s < kStages - 1; ++s) {
      if (next_ < end_) CopyActivations(s);
      CommitCopies();
    }
    write_ = kStages - 1;
  }

  // The next group's weights and activations; the place that the one before had is filled anew.
  template <typename Use>
  __device__ void Take(Use use) {
    WaitForCopies<kStages - 2>();
    const uint4* stage = Stage(read_);
    uint4 weights[WeightLoads(kEncoding)], activations[kTiles];
#pragma unroll
    for (int i = 0; i < WeightLoads(kEncoding); ++i) weights[i] = stage[i * kWarp];
#pragma unroll
    for (int i = 0; i < kTiles; ++i) activations[i] = *Activations(read_, i);
    if (next_ < end_) {
      CopyWeights(write_, next_);
      CopyActivations(write_);
    }
    CommitCopies();
    read_ = read_ + 1 == kStages ? 0 : read_ + 1;
    write_ = write_ + 1 == kStages ? 0 : write_ + 1;
    use(weights, activations);
  }

 private:
  __device__ uint4* Stage(int stage) const {
    return ring_ + stage * kStageWords<kEncoding, kTiles> + lane_;
  }
  __device__ uint4* Activations(int stage, int tile) const {
    return Stage(stage) + (WeightLoads(kEncoding) + tile) * kWarp;
  }
  __device__ int64_t Row(int tile) const { return tile * kTileRows + lane_ / 4; }

  __device__ void CopyWeights(int stage, int32_t group) const {
    constexpr int kLoads = PlaneLoads(kEncoding);
    const uint8_t* from =
        job_.weight + int64_t{group} * PlaneBytes(kEncoding) + lane_ * sizeof(uint4);
    uint4* to = Stage(stage);
#pragma unroll
    for (int i = 0; i < kLoads; ++i) CopyAsync16(to + i * kWarp, from + i * kWarp * sizeof(uint4));
    if (IsNested(kEncoding) && lows_) {
      from += job_.plane_bytes;
#pragma unroll
      for (int i = 0; i < kLoads; ++i) {
        CopyAsync16(to + (kLoads + i) * kWarp, from + i * kWarp * sizeof(uint4));
      }
    }
  }

  // This thread's four quads of a group; of a run its first quad alone matters.
  __device__ uint2 Quads(int32_t group) const {
    if (!job_.quad || group >= end_) return {0, 0};
    const uint16_t* from = job_.quad + int64_t{group} * kGroupQuads + lane_ % 4 * 4;
    return __ldg(reinterpret_cast<const uint2*>(from));
  }

  // Of group next_, which it counts up.
  __device__ void CopyActivations(int stage) {
    const uint2 quads = quads_;
    // A run's first quad says where it starts: its last ones may be padding.
    const uint32_t first =
        job_.quad ? __shfl_sync(~0u, quads.x & 0xffffu, 0, 4) * 4 : place_ * kGroupInputs;
    ++next_;
    place_ = place_ + 1 == job_.groups_per_panel ? 0 : place_ + 1;
    quads_ = Quads(next_);
#pragma unroll
    for (int tile = 0; tile < kTiles; ++tile) {
      if (Row(tile) >= job_.rows) continue;
      const int8_t* row = job_.codes + Row(tile) * job_.codes_stride;
      uint4* to = Activations(stage, tile);
      if (!gathers_) {
        CopyAsync16(to, row + first + lane_ % 4 * 16);
      } else {
        auto* words = reinterpret_cast<uint32_t*>(to);
        CopyAsync4(words + 0, row + (quads.x & 0xffffu) * 4);
        CopyAsync4(words + 1, row + (quads.x >> 16) * 4);
        CopyAsync4(words + 2, row + (quads.y & 0xffffu) * 4);
        CopyAsync4(words + 3, row + (quads.y >> 16) * 4);
      }
    }
  }

  const Job& job_;
  uint4* ring_;
  int32_t next_, end_, place_;
  int lane_;
  bool gathers_, lows_;
  uint2 quads_ = {0, 0};
  int read_ = 0, write_;
};

// Integer sums of a panel's 32 outputs and 8·kTiles rows, in the order of the products' registers:
// [half of the outputs][tile][register]. Nested sums keep both planes apart until they are read, as
// rows that are read in 4 bits leave the second at 0.
template <Encoding kEncoding, int kTiles>
struct Sums {
  int32_t high[2][kTiles][4];
  int32_t low[IsNested(kEncoding) ? 2 : 1][kTiles][4];  // unused but for nested

  __device__ void Clear() {
#pragma unroll
    for (int i = 0; i < 8 * kTiles; ++i) {
      (&high[0][0][0])[i] = 0;
      if constexpr (IsNested(kEncoding)) (&low[0][0][0])[i] = 0;
    }
  }

  // hard: for each tile, all ones where this thread's row is read in 8 bits, else 0.
  __device__ void Add(const uint4* w, const uint4* b, const uint32_t* hard, bool any_hard) {
    if constexpr (kEncoding == Encoding::kInt8) {
#pragma unroll
      for (int tile = 0; tile < kTiles; ++tile) {
        MultiplyAddGroup(high[0][tile], w[0], w[1], b[tile]);
        MultiplyAddGroup(high[1][tile], w[2], w[3], b[tile]);
      }
    } else {
      // 16 times the nibble; Nested1's 4-bit reading is 16·h + 8.
      constexpr uint32_t kMiddle = kEncoding == Encoding::kNested1 ? 0x08080808u : 0u;
      const auto low_half = [](uint32_t v) { return LowNibbles16(v) | kMiddle; };
      const auto high_half = [](uint32_t v) { return HighNibbles16(v) | kMiddle; };
      const uint4 h[4] = {ForWords(w[0], low_half), ForWords(w[1], low_half),
                          ForWords(w[0], high_half), ForWords(w[1], high_half)};
#pragma unroll
      for (int tile = 0; tile < kTiles; ++tile) {
        MultiplyAddGroup(high[0][tile], h[0], h[1], b[tile]);
        MultiplyAddGroup(high[1][tile], h[2], h[3], b[tile]);
      }
      if constexpr (IsNested(kEncoding)) {
        if (!any_hard) return;
        // 16·l, of Nested1 16·(l − 8): what the 8-bit reading adds.
        constexpr uint32_t kFlip = kEncoding == Encoding::kNested1 ? 0x80808080u : 0u;
        const auto low_rest = [](uint32_t v) { return LowNibbles16(v) ^ kFlip; };
        const auto high_rest = [](uint32_t v) { return HighNibbles16(v) ^ kFlip; };
        const uint4 l[4] = {ForWords(w[2], low_rest), ForWords(w[3], low_rest),
                            ForWords(w[2], high_rest), ForWords(w[3], high_rest)};
#pragma unroll
        for (int tile = 0; tile < kTiles; ++tile) {
          const uint32_t mask = hard[tile];
          const uint4 masked = {b[tile].x & mask, b[tile].y & mask, b[tile].z & mask,
                                b[tile].w & mask};
          MultiplyAddGroup(low[0][tile], l[0], l[1], masked);
          MultiplyAddGroup(low[1][tile], l[2], l[3], masked);
        }
      }
    }
  }

  // Σ q·w, exact.
  __device__ int32_t Total(int half, int tile, int i) const {
    const int32_t h = high[half][tile][i];
    if constexpr (kEncoding == Encoding::kInt8) return h;
    if constexpr (kEncoding == Encoding::kInt4) return h >> 4;
    if constexpr (kEncoding == Encoding::kNested1) return h + (low[half][tile][i] >> 4);
    if constexpr (kEncoding == Encoding::kNested4) return (h >> 2) + (low[half][tile][i] >> 4);
  }
};

// What a panel's segment comes to: 8·kTiles values a thread, integers where the panel has one row of
// scales, else floats with the scales in them.
template <bool kManyScales, int kTiles>
struct Segment {
  using Value = std::conditional_t<kManyScales, float, int32_t>;
  Value value[2][kTiles][4];

  __device__ Value& operator[](int i) { return (&value[0][0][0])[i]; }
};

template <Encoding kEncoding, int kTiles, bool kManyScales>
__global__ void __launch_bounds__(kWarpsPerBlock * kWarp, kBlocksPerMultiprocessor)
    DecodeKernel(const __grid_constant__ Job job, int32_t workers, bool gathers) {
  extern __shared__ uint4 shared[];
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  const int32_t id = static_cast<int32_t>(blockIdx.x) * kWarpsPerBlock + warp;
  if (id >= workers) return;
  const Worker from = job.worker[id], to = job.worker[id + 1];
  int32_t panel = from.panel;

  uint32_t hard[kTiles];
  bool any_hard = false;
  if (job.easy) WaitForEarlierLaunch();  // else weights are copied before that
#pragma unroll
  for (int tile = 0; tile < kTiles; ++tile) {
    const int64_t row = tile * kTileRows + lane / 4;
    hard[tile] = job.easy && (row >= job.rows || job.easy[row]) ? 0u : ~0u;
    any_hard |= hard[tile] != 0;
  }
  any_hard = __any_sync(~0u, any_hard);
  Stream<kEncoding, kTiles> stream(job, shared + warp * kStages * kStageWords<kEncoding, kTiles>,
                                   from.group, to.group, from.group - job.group_ptr[panel],
                                   gathers, any_hard);

  int32_t segment = from.segment;
  for (int32_t unit = from.unit; unit < to.unit; ++panel, segment = 0) {
    const int32_t panel_end = job.unit_ptr[panel + 1];
    const int32_t stop = min(to.unit, panel_end);
    const bool stored = job.group_ptr[panel + 1] > job.group_ptr[panel];
    const int32_t row_of_scales =
        job.scale_ptr[panel] +
        (kManyScales ? (unit - job.unit_ptr[panel]) / job.groups_per_scale : 0);
    const float* scale = job.scale + int64_t{row_of_scales} * kPanelOutputs + lane / 4;

    Segment<kManyScales, kTiles> result;
#pragma unroll
    for (int i = 0; i < 8 * kTiles; ++i) result[i] = 0;
    Sums<kEncoding, kTiles> sums;
    const auto take = [&](int32_t groups) {
      sums.Clear();
      for (int32_t i = 0; i < groups; ++i) {
        stream.Take([&](const uint4* w, const uint4* b) { sums.Add(w, b, hard, any_hard); });
      }
    };
    if constexpr (kManyScales) {
      while (stored && unit < stop) {
        const int32_t groups = min(job.groups_per_scale, stop - unit);
        take(groups);
        unit += groups;
#pragma unroll
        for (int i = 0; i < 8 * kTiles; ++i) {
          const int half = i / (4 * kTiles), tile = i / 4 % kTiles;
          result[i] += scale[half * 16 + i % 4 / 2 * 8] *
                       static_cast<float>(sums.Total(half, tile, i % 4));
        }
        scale += kPanelOutputs;
      }
    } else {
      take(stored ? stop - unit : 0);
#pragma unroll
      for (int i = 0; i < 8 * kTiles; ++i) {
        result[i] = sums.Total(i / (4 * kTiles), i / 4 % kTiles, i % 4);
      }
    }
    unit = stop;

    const int32_t first_slot = job.slot_ptr[panel], slots = job.slot_ptr[panel + 1] - first_slot;
    if (slots > 0) {
      constexpr int kSlot = 8 * kTiles * kWarp;
      using Value = typename Segment<kManyScales, kTiles>::Value;
      auto* slot = reinterpret_cast<Value*>(job.slot) + int64_t{first_slot} * kSlot + lane;
      const auto is_row = [&](int i) {
        return i / 4 % kTiles * kTileRows + lane % 4 * 2 + i % 2 < job.rows;
      };
#pragma unroll
      for (int i = 0; i < 8 * kTiles; ++i) {
        if (is_row(i)) __stcg(slot + segment * kSlot + i * kWarp, result[i]);
      }
      __threadfence();
      __syncwarp();
      int32_t before = 0;
      if (lane == 0) before = atomicAdd(&job.arrived[panel], 1);
      before = __shfl_sync(~0u, before, 0);
      if (before != slots - 1) continue;
      __threadfence();
      if (lane == 0) job.arrived[panel] = 0;
#pragma unroll
      for (int i = 0; i < 8 * kTiles; ++i) {
        if (!is_row(i)) continue;
        Value sum = 0;
        for (int32_t s = 0; s < slots; ++s) sum += __ldcg(slot + s * kSlot + i * kWarp);
        result[i] = sum;
      }
    }
#pragma unroll
    for (int i = 0; i < 8 * kTiles; ++i) {
      const int r = i / (4 * kTiles) * 16 + lane / 4 + i % 4 / 2 * 8;
      const int64_t row = i / 4 % kTiles * kTileRows + lane % 4 * 2 + i % 2;
      const int64_t output = int64_t{panel} * kPanelOutputs + r;
      if (row >= job.rows || output >= job.outputs) continue;
      float sum = static_cast<float>(result[i]);
      if constexpr (!kManyScales) sum *= job.scale[int64_t{row_of_scales} * kPanelOutputs + r];
      WriteOutput(job, row, output, sum);
    }
  }
}

template <Encoding kEncoding, int kTiles, bool kManyScales>
cudaError_t LaunchOne(const Job& job, const Launch& launch) {
  const auto kernel = DecodeKernel<kEncoding, kTiles, kManyScales>;
  constexpr size_t kShared =
      sizeof(uint4) * kWarpsPerBlock * kStages * kStageWords<kEncoding, kTiles>;
  static const cudaError_t allowed = cudaFuncSetAttribute(
      kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(kShared));
  if (allowed != cudaSuccess) return allowed;
  cudaLaunchAttribute overlap{};
  overlap.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  overlap.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>((launch.workers + kWarpsPerBlock - 1) / kWarpsPerBlock));
  config.blockDim = dim3(kWarpsPerBlock * kWarp);
  config.dynamicSmemBytes = kShared;
  config.stream = launch.stream;
  config.attrs = &overlap;
  config.numAttrs = launch.overlaps ? 1 : 0;
  return cudaLaunchKernelEx(&config, kernel, job, launch.workers, launch.gathers);
}

template <Encoding kEncoding>
cudaError_t LaunchRows(const Job& job, const Launch& launch) {
  const bool many = job.groups_per_scale > 0;
  if (job.rows <= kTileRows) {
    return many ? LaunchOne<kEncoding, 1, true>(job, launch)
                : LaunchOne<kEncoding, 1, false>(job, launch);
  }
  return many ? LaunchOne<kEncoding, 2, true>(job, launch)
              : LaunchOne<kEncoding, 2, false>(job, launch);
}

}  // namespace

int32_t DecodeWarpsPerMultiprocessor() noexcept {
  return kWarpsPerBlock * kBlocksPerMultiprocessor;
}

cudaError_t LaunchDecode(const Job& job, const Launch& launch) noexcept {
  switch (launch.encoding) {
    case Encoding::kInt8:
      return LaunchRows<Encoding::kInt8>(job, launch);
    case Encoding::kInt4:
      return LaunchRows<Encoding::kInt4>(job, launch);
    case Encoding::kNested1:
      return LaunchRows<Encoding::kNested1>(job, launch);
    default:
      return LaunchRows<Encoding::kNested4>(job, launch);
  }
}

}  // namespace sparsefuse::cuda

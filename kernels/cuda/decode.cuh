// Few rows: bound by the memory that the weights stream from. A block of threads works through its
// slice of the stored groups (plan.h), its warps taking turns: warp w of W has the groups w, w + W,
// … (where a panel has several rows of scales: the groups of the rows w, w + W, …). Each thread
// copies, ahead of time, just the bytes that it will multiply, so that streaming needs no barrier.
// At a panel's end the warps leave their sums in shared memory and go on; two more warps, one for
// each half of a panel's outputs, add them up and finish them.

#ifndef SPARSEFUSE_KERNELS_CUDA_DECODE_CUH_
#define SPARSEFUSE_KERNELS_CUDA_DECODE_CUH_

#include "kernels/cuda/device.cuh"

namespace sparsefuse::cuda::decode {

constexpr int kWarps = 8;      // of a block, that stream
constexpr int kFinishers = 2;  // warps that finish panels
static_assert(kFinishers == kArrivals);
constexpr int kThreads = (kWarps + kFinishers) * kWarp;
constexpr int kBlocksPerMultiprocessor = kMaxDecodeBlocks;  // in the large room; in the small 1
constexpr int kTileRows = 8;
static_assert(kDecodeRows == 2 * kTileRows);  // so a slot holds what two tiles come to

// Of 16 bytes, a thread and group.
__host__ __device__ constexpr int PlaneLoads(Encoding encoding) {
  return encoding == Encoding::kInt8 ? 4 : 2;
}
__host__ __device__ constexpr int WeightLoads(Encoding encoding) {
  return PlaneLoads(encoding) * (IsNested(encoding) ? 2 : 1);
}
template <Encoding kEncoding, int kTiles>
constexpr int kStageWords = (WeightLoads(kEncoding) + kTiles) * kWarp;  // of 16 bytes
template <int kTiles>
constexpr int kPartWords = 2 * kTiles* kWarp;  // of 16 bytes: a warp's sums of a panel

// Where a block's sums meet: places that are used in turn, each with the sums of every warp.
struct Meeting {
  Barrier full[2], empty[2];
};
constexpr int kMeetingBytes = 128;
static_assert(sizeof(Meeting) <= kMeetingBytes);

// A warp's share of the room, of 16 bytes: its sums in each meeting place, and its ring of stages.
// One stage is read, one has just been asked for, and only what lies between hides the memory's
// latency: so at least three. Where there is not room for that, one place has to do, and a warp
// that comes to a panel's end early waits until the panel before is added up.
constexpr int kMinStages = 3;
constexpr int WarpWords(Room room) { return (RoomBytes(room) - kMeetingBytes) / 16 / kWarps; }
template <Encoding kEncoding, int kTiles, Room kRoom>
constexpr int kPlacesOf =
    WarpWords(kRoom) >= 2 * kPartWords<kTiles> + kMinStages* kStageWords<kEncoding, kTiles> ? 2 : 1;
template <Encoding kEncoding, int kTiles, Room kRoom>
constexpr int kStagesOf = (WarpWords(kRoom) -
                           kPlacesOf<kEncoding, kTiles, kRoom> * kPartWords<kTiles>) /
                          kStageWords<kEncoding, kTiles>;

// A warp's ring of stages, one group each: weights, then activations, as its threads want them.
template <Encoding kEncoding, int kTiles, bool kManyScales, Room kRoom>
class Stream {
  static constexpr int kStages = kStagesOf<kEncoding, kTiles, kRoom>;
  static_assert(kStages >= kMinStages);

 public:
  // This warp's part of a slice. Copies weights at once: they never change.
  __device__ Stream(const Job& job, uint4* ring, const Worker& from, const Worker& to, int warp,
                    bool gathers)
      : job_(job),
        ring_(ring),
        row_(from.scale_row + warp),
        row_end_(kManyScales ? to.scale_row : 0),
        end_(to.group),
        lane_(threadIdx.x % kWarp),
        gathers_(gathers) {
    next_ = from.group + warp;
    if constexpr (kManyScales) FindRow();
    const int32_t first = next_, first_row = row_, first_stop = stop_;
    for (int s = 0; s < kStages - 1 && next_ < end_; ++s) {
      CopyPlane(s, next_, 0);
      Advance();
    }
    next_ = first;
    row_ = first_row;
    stop_ = first_stop;
    quads_ = Quads(next_);
    // Rows that do not exist stay zero.
    for (int tile = 0; tile < kTiles; ++tile) {
      if (Row(tile) >= job.rows) {
        for (int s = 0; s < kStages; ++s) *Activations(s, tile) = {0, 0, 0, 0};
      }
    }
  }

  // Once the activations are there. lows: whether the low parts of nested weights are wanted.
  __device__ void Start(bool lows) {
    lows_ = lows;
    for (int s = 0; s < kStages - 1; ++s) {
      if (next_ < end_) {
        if (IsNested(kEncoding) && lows_) CopyPlane(s, next_, 1);
        CopyActivations(s);
      }
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
      CopyPlane(write_, next_, 0);
      if (IsNested(kEncoding) && lows_) CopyPlane(write_, next_, 1);
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

  __device__ void CopyPlane(int stage, int32_t group, int plane) const {
    constexpr int kLoads = PlaneLoads(kEncoding);
    const uint8_t* from = job_.weight + plane * job_.plane_bytes +
                          int64_t{group} * PlaneBytes(kEncoding) + lane_ * sizeof(uint4);
    uint4* to = Stage(stage) + plane * kLoads * kWarp;
#pragma unroll
    for (int i = 0; i < kLoads; ++i) CopyAsync16(to + i * kWarp, from + i * kWarp * sizeof(uint4));
  }

  // To the groups of this warp's next row of scales.
  __device__ void FindRow() {
    if (row_ < row_end_) {
      next_ = job_.row_ptr[row_];
      stop_ = job_.row_ptr[row_ + 1];
    } else {
      next_ = end_;
    }
  }
  __device__ void Advance() {
    if constexpr (kManyScales) {
      if (++next_ < stop_) return;
      row_ += kWarps;
      FindRow();
    } else {
      next_ += kWarps;
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
    const uint32_t first = job_.quad ? __shfl_sync(~0u, quads.x & 0xffffu, 0, 4) * 4
                                     : next_ % job_.groups_per_panel * kGroupInputs;
    Advance();
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
  int32_t next_, stop_ = 0;  // the group to copy next; where its row of scales ends
  int32_t row_, row_end_;    // its row of scales
  int32_t end_;
  int lane_;
  bool gathers_, lows_ = false;
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

// What a panel comes to: integers where it has one row of scales, else floats with scales in them.
template <bool kManyScales>
using Sum = std::conditional_t<kManyScales, float, int32_t>;

// The streaming warps' work. parts: [places][kWarps][8 · kTiles values][lanes].
template <Encoding kEncoding, int kTiles, bool kManyScales, Room kRoom>
__device__ void StreamSlice(const Job& job, const Worker& from, const Worker& to, bool gathers,
                            uint4* ring, Meeting& meeting, Sum<kManyScales>* parts) {
  constexpr int kPlaces = kPlacesOf<kEncoding, kTiles, kRoom>;
  constexpr int kValues = 8 * kTiles, kPart = kValues * kWarp;
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  Stream<kEncoding, kTiles, kManyScales, kRoom> stream(job, ring, from, to, warp, gathers);
  WaitForEarlierLaunch();
  uint32_t hard[kTiles];
  bool any_hard = false;
#pragma unroll
  for (int tile = 0; tile < kTiles; ++tile) {
    const int64_t row = tile * kTileRows + lane / 4;
    hard[tile] = job.easy && (row >= job.rows || job.easy[row]) ? 0u : ~0u;
    any_hard |= hard[tile] != 0;
  }
  any_hard = __any_sync(~0u, any_hard);
  stream.Start(any_hard);

  int32_t mine = (kManyScales ? from.scale_row : from.group) + warp;  // a row, or a group
  for (int32_t panel = from.first_panel; panel <= from.last_panel; ++panel) {
    const int32_t stop = kManyScales ? min(job.scale_ptr[panel + 1], to.scale_row)
                                     : min(job.group_ptr[panel + 1], to.group);
    Sums<kEncoding, kTiles> sums;
    sums.Clear();
    Sum<kManyScales> result[kValues] = {};
    const auto take = [&] {
      stream.Take([&](const uint4* w, const uint4* b) { sums.Add(w, b, hard, any_hard); });
    };
    if constexpr (kManyScales) {
      for (; mine < stop; mine += kWarps) {
        const float* scales = job.scale + int64_t{mine} * kPanelOutputs + lane / 4;
        const float of_row[4] = {scales[0], scales[8], scales[16], scales[24]};
        const int32_t groups = job.row_ptr[mine + 1] - job.row_ptr[mine];
        for (int32_t i = 0; i < groups; ++i) take();
#pragma unroll
        for (int i = 0; i < kValues; ++i) {
          const int t = sums.Total(i / (4 * kTiles), i / 4 % kTiles, i % 4);
          result[i] += of_row[i / (4 * kTiles) * 2 + i % 4 / 2] * static_cast<float>(t);
        }
        sums.Clear();
      }
    } else {
      for (; mine < stop; mine += kWarps) take();
#pragma unroll
      for (int i = 0; i < kValues; ++i) {
        result[i] = sums.Total(i / (4 * kTiles), i / 4 % kTiles, i % 4);
      }
    }
    const int use = panel - from.first_panel, place = use % kPlaces;
    if (use >= kPlaces) WaitFor(&meeting.empty[place], use / kPlaces % 2 ^ 1);
#pragma unroll
    for (int i = 0; i < kValues; ++i) {
      parts[(place * kWarps + warp) * kPart + i * kWarp + lane] = result[i];
    }
    Arrive(&meeting.full[place]);
  }
}

// Warp `half` of those that finish: outputs 16 · half … 16 · half + 15 of every panel.
template <int kTiles, bool kManyScales, int kPlaces>
__device__ void FinishPanels(const Job& job, const Worker& from, int half, Meeting& meeting,
                             const Sum<kManyScales>* parts) {
  constexpr int kValues = 4 * kTiles, kPart = 2 * kValues * kWarp;  // ours; a warp's in a place
  const int lane = threadIdx.x % kWarp;
  WaitForEarlierLaunch();
  float row_scale[kTiles * 2];
#pragma unroll
  for (int i = 0; i < 2 * kTiles; ++i) {
    const int64_t row = i / 2 * kTileRows + lane % 4 * 2 + i % 2;
    row_scale[i] = row < job.rows ? job.row_scale[row] : 0.0f;
  }
  for (int32_t panel = from.first_panel; panel <= from.last_panel; ++panel) {
    const int64_t output = int64_t{panel} * kPanelOutputs + half * 16 + lane / 4;  // and 8 further
    const int32_t first_slot = job.slot_ptr[panel], slots = job.slot_ptr[panel + 1] - first_slot;
    const float* scales = job.scale + int64_t{job.scale_ptr[panel]} * kPanelOutputs;
    float bias[2], scale[2];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      bias[i] = output + i * 8 < job.outputs ? job.bias[output + i * 8] : 0.0f;
      scale[i] = kManyScales ? 1.0f : scales[half * 16 + lane / 4 + i * 8];
    }
    const int use = panel - from.first_panel, place = use % kPlaces;
    WaitFor(&meeting.full[place], use / kPlaces % 2);
    Sum<kManyScales> value[kValues] = {};
#pragma unroll
    for (int w = 0; w < kWarps; ++w) {
#pragma unroll
      for (int i = 0; i < kValues; ++i) {
        value[i] += parts[(place * kWarps + w) * kPart + (half * kValues + i) * kWarp + lane];
      }
    }
    Arrive(&meeting.empty[place]);

    if (slots > 0) {
      const int32_t segment = panel == from.first_panel ? from.segment : 0;
      auto* slot = reinterpret_cast<Sum<kManyScales>*>(job.slot) + int64_t{first_slot} * kPart +
                   half * kValues * kWarp + lane;
#pragma unroll
      for (int i = 0; i < kValues; ++i) __stcg(slot + segment * kPart + i * kWarp, value[i]);
      __threadfence();
      __syncwarp();
      int32_t before = 0;
      if (lane == 0) before = CountArrival(&job.arrived[panel * kFinishers + half]);
      before = __shfl_sync(~0u, before, 0);
      if (before != slots - 1) continue;
      __threadfence();
      if (lane == 0) job.arrived[panel * kFinishers + half] = 0;
#pragma unroll
      for (int i = 0; i < kValues; ++i) value[i] = 0;
#pragma unroll 2
      for (int32_t s = 0; s < slots; ++s) {
#pragma unroll
        for (int i = 0; i < kValues; ++i) value[i] += __ldcg(slot + s * kPart + i * kWarp);
      }
    }
#pragma unroll
    for (int i = 0; i < kValues; ++i) {
      const int64_t row = i / 4 * kTileRows + lane % 4 * 2 + i % 2;
      const int64_t at = output + i % 4 / 2 * 8;
      if (row >= job.rows || at >= job.outputs) continue;
      const float v =
          row_scale[i / 4 * 2 + i % 2] * (scale[i % 4 / 2] * static_cast<float>(value[i])) +
          bias[i % 4 / 2];
      Store(job, row * job.outputs + at, ActivateOnDevice(job.activation, v));
    }
  }
}

template <Encoding kEncoding, int kTiles, Room kRoom = Room::kLarge>
constexpr size_t kSharedOf =
    kMeetingBytes +
    sizeof(uint4) * kWarps*(kPlacesOf<kEncoding, kTiles, kRoom>* kPartWords<kTiles> +
                            kStagesOf<kEncoding, kTiles, kRoom> * kStageWords<kEncoding, kTiles>);

// A block's work, in kSharedOf bytes of shared memory.
template <Encoding kEncoding, int kTiles, bool kManyScales, Room kRoom = Room::kLarge>
__device__ void Slice(const Job& job, bool gathers) {
  constexpr int kPlaces = kPlacesOf<kEncoding, kTiles, kRoom>;
  static_assert(kSharedOf<kEncoding, kTiles, kRoom> <= RoomBytes(kRoom));
  extern __shared__ uint4 shared[];
  auto& meeting = *reinterpret_cast<Meeting*>(shared);
  uint4* const parts = shared + kMeetingBytes / sizeof(uint4);
  uint4* const rings = parts + kPlaces * kWarps * kPartWords<kTiles>;
  auto* const sums = reinterpret_cast<Sum<kManyScales>*>(parts);
  const int warp = threadIdx.x / kWarp;
  LetNextLaunchStart();
  if (threadIdx.x == 0) {
    for (int i = 0; i < kPlaces; ++i) {
      InitBarrier(&meeting.full[i], kWarps * kWarp);
      InitBarrier(&meeting.empty[i], kFinishers * kWarp);
    }
  }
  __syncthreads();
  const Worker from = job.worker[blockIdx.x], to = job.worker[blockIdx.x + 1];
  if (warp < kWarps) {
    uint4* const ring =
        rings + warp * kStagesOf<kEncoding, kTiles, kRoom> * kStageWords<kEncoding, kTiles>;
    StreamSlice<kEncoding, kTiles, kManyScales, kRoom>(job, from, to, gathers, ring, meeting, sums);
  } else {
    FinishPanels<kTiles, kManyScales, kPlaces>(job, from, warp - kWarps, meeting, sums);
  }
}

}  // namespace sparsefuse::cuda::decode

#endif  // SPARSEFUSE_KERNELS_CUDA_DECODE_CUH_

// A few rows times a panel of layout 1 by dot products along the 64 bytes of an output:
//   Σ a·b = Σ a·(b + 128) − 128·Σ a     unsigned × signed; the last sum belongs to the row
// Each output has a vector of sums for each row; turning 16 of them over adds up their lanes.
// Templates on the operations of an instruction set, as amx_tile.h says.

#ifndef SPARSEFUSE_KERNELS_LINEAR_AMX_DOTS_H_
#define SPARSEFUSE_KERNELS_LINEAR_AMX_DOTS_H_

#include <cstddef>
#include <cstdint>

#include "kernels/linear/amx_panel.h"
#include "kernels/linear/unroll.h"

namespace sparsefuse {

template <class Ops>
struct AmxDots {
  using Panels = AmxPanel<Ops>;
  using Int = typename Ops::Int;
  using Panel = typename Panels::Panel;

  static constexpr int64_t kLanes = Ops::kLanes;

  // sums[row][output] += the products of kGroups groups, in lanes that belong together;
  // surplus[row] += what 128 more in every weight adds.
  template <Reading reading, bool kSparse, int R, int kGroups>
  static void AddGroups(const Panel& panel, const std::byte* codes, int64_t row_bytes,
                        int64_t group, Int (&sums)[R][kPanelOutputs], Int (&surplus)[R]) {
    const Int offset = Ops::BroadcastByte(128);
    Int a[kGroups][R];
    SPARSEFUSE_UNROLL
    for (int i = 0; i < kGroups; ++i) {
      SPARSEFUSE_UNROLL
      for (int r = 0; r < R; ++r) {
        const std::byte* row = codes + r * row_bytes;
        if constexpr (kSparse) {
          a[i][r] = Ops::GatherQuads(row, panel.quad + (group + i) * kGroupQuads);
        } else {
          a[i][r] = Ops::LoadBytes(row + (group + i) * kGroupInputs);
        }
        surplus[r] = Ops::DotBytes(surplus[r], offset, a[i][r]);
      }
    }
    for (int64_t output = 0; output < kLanes; ++output) {
      Int sum[R][2];
      SPARSEFUSE_UNROLL
      for (int r = 0; r < R; ++r) {
        sum[r][0] = sums[r][output];
        sum[r][1] = sums[r][kLanes + output];
      }
      SPARSEFUSE_UNROLL
      for (int i = 0; i < kGroups; ++i) {
        Int w[2];
        Panels::template LoadOutputs<reading>(panel, group + i, output, w);
        SPARSEFUSE_UNROLL
        for (int h = 0; h < 2; ++h) {
          const Int u = Ops::AddBytes(w[h], offset);
          SPARSEFUSE_UNROLL
          for (int r = 0; r < R; ++r) sum[r][h] = Ops::DotBytes(sum[r][h], u, a[i][r]);
        }
      }
      SPARSEFUSE_UNROLL
      for (int r = 0; r < R; ++r) {
        sums[r][output] = sum[r][0];
        sums[r][kLanes + output] = sum[r][1];
      }
    }
  }

  // Σ of the lanes of each of 16 vectors, as one vector.
  static Int SumLanes(const Int* v) {
    Int line[kLanes];
    for (int64_t i = 0; i < kLanes; ++i) line[i] = v[i];
    Ops::Transpose(line);
    Int sum = line[0];
    for (int64_t i = 1; i < kLanes; ++i) sum = Ops::Add(sum, line[i]);
    return sum;
  }

  template <Reading reading, bool kSparse, int R>
  static void Multiply(const AmxJob& job, const Panel& panel, const AmxBlock& block) {
    if constexpr (R > 0) {
      if (block.rows < R) return Multiply<reading, kSparse, R - 1>(job, panel, block);
      constexpr int kStep = 4;  // groups: their sums go through memory
      const int64_t row_bytes = job.quads * 4;
      float totals[R][kPanelOutputs];
      for (int64_t g = 0; g < panel.place.scale_rows; ++g) {
        const int64_t next = (g + 1) * panel.groups_per_scale;
        const int64_t end = next < panel.place.groups ? next : panel.place.groups;
        int64_t group = g * panel.groups_per_scale;
        Int sums[R][kPanelOutputs], surplus[R];
        for (int r = 0; r < R; ++r) {
          surplus[r] = Ops::Zero();
          for (Int& sum : sums[r]) sum = Ops::Zero();
        }
        for (; group + kStep <= end; group += kStep) {
          AddGroups<reading, kSparse, R, kStep>(panel, block.codes, row_bytes, group, sums,
                                                surplus);
        }
        for (; group < end; ++group) {
          AddGroups<reading, kSparse, R, 1>(panel, block.codes, row_bytes, group, sums, surplus);
        }
        for (int r = 0; r < R; ++r) {
          const int32_t extra = Ops::ReduceAdd(surplus[r]);
          Panels::AddScaleRow(job, panel, g,
                              {Ops::Subtract(SumLanes(sums[r]), extra),
                               Ops::Subtract(SumLanes(sums[r] + kLanes), extra)},
                              block.first + r, totals[r]);
        }
      }
    }
  }
};

}  // namespace sparsefuse

#endif  // SPARSEFUSE_KERNELS_LINEAR_AMX_DOTS_H_

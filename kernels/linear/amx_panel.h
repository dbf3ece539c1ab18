// A panel of layout 1 as the tile kernel reads it, and what becomes of its sums. Templates on the
// operations of an instruction set, as amx_tile.h says.

#ifndef SPARSEFUSE_KERNELS_LINEAR_AMX_PANEL_H_
#define SPARSEFUSE_KERNELS_LINEAR_AMX_PANEL_H_

#include <cstddef>
#include <cstdint>

#include "kernels/linear/amx_driver.h"
#include "kernels/linear/rows_tile.h"
#include "kernels/linear/weights_tile.h"

namespace sparsefuse {

template <class Ops>
struct AmxPanel {
  using Float = typename Ops::Float;
  using Int = typename Ops::Int;
  using Rows = RowsTile<Ops>;

  static constexpr int64_t kLanes = Ops::kLanes;
  static constexpr int64_t kTileLine = 4 * kLanes;           // bytes
  static constexpr int64_t kTileBytes = kLanes * kTileLine;  // 1 KiB
  static constexpr int64_t kAhead = 4096;  // bytes of a plane between what is read and prefetched

  // --- Weights ----------------------------------------------------------------------------------

  struct Panel {
    const LinearPanel& place;
    int64_t groups_per_scale;
    const uint16_t* quad;         // the panel's; null: dense
    const std::byte *high, *low;  // its weights; low: of nested encodings
    const float* scale;           // of the first scale row, the next kPanelOutputs further
    typename Rows::Columns columns;
  };

  static constexpr int64_t StoredBytes(Reading reading) {  // of a group in one plane
    return reading == Reading::kInt8 ? 2 * kTileBytes : kTileBytes;
  }
  static constexpr bool ReadsLow(Reading reading) {
    return reading == Reading::kNested1 || reading == Reading::kNested4;
  }

  static Panel MakePanel(const AmxJob& job, Reading reading, int64_t index) {
    const LinearPanel& place = job.panel[index];
    const int64_t output = index * kPanelOutputs;
    const std::byte* high = job.weight + place.group * StoredBytes(reading);
    return {.place = place,
            .groups_per_scale = job.groups_per_scale,
            .quad = job.quad ? job.quad + place.group * kGroupQuads : nullptr,
            .high = high,
            .low = high + job.plane_bytes,
            .scale = job.scale + place.scale_row * kPanelOutputs,
            .columns = {.bias = job.bias + output,
                        .first = output,
                        .count = job.outputs - output < kPanelOutputs ? job.outputs - output
                                                                      : kPanelOutputs}};
  }

  // Outputs r and 16 + r of a group, r < 16, and what will be needed in a while.
  template <Reading reading>
  static void LoadOutputs(const Panel& panel, int64_t group, int64_t r, Int (&w)[2]) {
    const int64_t place = group * StoredBytes(reading) + r * kTileLine;
    const std::byte* high = panel.high + place;
    Ops::Prefetch(high + kAhead);
    if constexpr (reading == Reading::kInt8) {
      Ops::Prefetch(high + kTileBytes + kAhead);
      w[0] = Ops::LoadBytes(high);
      w[1] = Ops::LoadBytes(high + kTileBytes);
    } else {
      if constexpr (ReadsLow(reading)) Ops::Prefetch(panel.low + place + kAhead);
      WeightsTile<Ops>::template Load<reading>(high, panel.low + place, w);
    }
  }

  // --- Sums to outputs --------------------------------------------------------------------------

  // scale·t of scale row g is added to the row's total; after the last one the row is stored.
  static void AddScaleRow(const AmxJob& job, const Panel& panel, int64_t g, const Int (&sum)[2],
                          int64_t row, float* total) {
    Float v[2];
    for (int h = 0; h < 2; ++h) {
      const Float scale = Ops::Load(panel.scale + g * kPanelOutputs + h * kLanes);
      v[h] = Ops::Multiply(Ops::ToFloat(sum[h]), scale);
      if (g > 0) v[h] = Ops::AddFloat(Ops::Load(total + h * kLanes), v[h]);
    }
    if (g + 1 == panel.place.scale_rows) {
      Rows::StoreRow(job, panel.columns, row, v);
    } else {
      for (int h = 0; h < 2; ++h) Ops::Store(total + h * kLanes, v[h]);
    }
  }

  // A panel without groups.
  static void StoreEmpty(const AmxJob& job, const Panel& panel, int64_t first, int64_t last) {
    const Float zero[2] = {Ops::Broadcast(0.0f), Ops::Broadcast(0.0f)};
    const int64_t end = job.block[last - 1].first + job.block[last - 1].rows;
    for (int64_t r = job.block[first].first; r < end; ++r) {
      Rows::StoreRow(job, panel.columns, r, zero);
    }
  }
};

}  // namespace sparsefuse

#endif  // SPARSEFUSE_KERNELS_LINEAR_AMX_PANEL_H_

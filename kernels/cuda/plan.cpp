#include "kernels/cuda/plan.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace sparsefuse::cuda {
namespace {

// Every group holds 64 neighbours that start at a multiple of 64; those beyond the inputs are
// padding.
bool AreRuns(const LinearShape& shape, const BlockIndex& blocks) {
  const int64_t padding = QuadCount(shape.inputs);
  const int64_t slots = blocks.group_ptr[shape.panels()] * kGroupQuads;
  for (int64_t i = 0; i < slots; ++i) {
    const int64_t first = blocks.quad[i / kGroupQuads * kGroupQuads];
    if (first % kGroupQuads != 0) return false;
    if (blocks.quad[i] != std::min(first + i % kGroupQuads, padding)) return false;
  }
  return true;
}

// Each `count` neighbouring panels store the same inputs.
bool ShareInputs(const LinearShape& shape, const BlockIndex& blocks, int64_t count) {
  const int32_t* ptr = blocks.group_ptr;
  for (int64_t p = 0; p < shape.panels(); ++p) {
    const int64_t first = p / count * count;
    const int64_t groups = ptr[first + 1] - ptr[first];
    if (ptr[p + 1] - ptr[p] != groups) return false;
    const uint16_t* quad = blocks.quad + ptr[first] * kGroupQuads;
    if (!std::equal(quad, quad + groups * kGroupQuads, blocks.quad + ptr[p] * kGroupQuads)) {
      return false;
    }
  }
  return true;
}

}  // namespace

DecodeShare ShareMultiprocessor(int32_t multiprocessor_bytes, int32_t block_bytes) {
  const Room room = block_bytes >= RoomBytes(Room::kLarge) ? Room::kLarge : Room::kSmall;
  const int32_t fit = multiprocessor_bytes / (RoomBytes(room) + kSystemBytes);
  return {room, std::clamp(fit, 1, kMaxDecodeBlocks)};
}

bool SkipsZeros(const LinearShape& shape, int64_t rows) {
  constexpr double kFewestZeros = 0.5;  // not measured: where skipping costs as much as it saves
  if (shape.sparse || IsNested(shape.encoding)) return false;
  // Sums of every row of scales meet in memory: of short ones as many bytes as weights.
  if (shape.scale_groups > 0 && shape.scale_groups * kGroupInputs < kSkipSpan) return false;
  return std::pow(double{shape.zero_inputs}, static_cast<double>(rows)) >= kFewestZeros;
}

SkipShape SkipShapeOf(const LinearShape& shape) {
  const int64_t groups = GroupsPerPanel(shape.inputs);
  const int64_t scale_groups = shape.scale_groups ? std::min(shape.scale_groups, groups) : groups;
  const int32_t strip = StripOutputs(shape.encoding);
  return {.inputs = shape.inputs,
          .scale_inputs = scale_groups * kGroupInputs,
          .strips = static_cast<int32_t>((shape.outputs + strip - 1) / strip),
          .strip_outputs = strip,
          .scale_rows = static_cast<int32_t>(shape.ScaleRows(groups)),
          .spans_per_scale =
              static_cast<int32_t>((scale_groups * kGroupInputs + kSkipSpan - 1) / kSkipSpan)};
}

Plan MakePlan(const LinearShape& layer_shape, const BlockIndex& blocks, int32_t workers,
              int32_t most_panels) {
  LinearShape shape = layer_shape;  // no panel has more groups than this
  shape.scale_groups = std::min(shape.scale_groups, GroupsPerPanel(kMaxInputs));
  const int64_t panels = shape.panels();
  Plan plan;
  if (SkipsZeros(shape, 1)) plan.input_words = SkipShapeOf(shape).words();
  plan.group_ptr.push_back(0);
  plan.scale_ptr.push_back(0);
  std::vector<int32_t> unit_ptr = {0};  // a unit: a stored group, or a panel that stores none
  for (int64_t p = 0; p < panels; ++p) {
    const auto groups =
        static_cast<int32_t>(shape.sparse ? blocks.group_ptr[p + 1] - blocks.group_ptr[p]
                                          : GroupsPerPanel(shape.inputs));
    const auto rows = static_cast<int32_t>(shape.ScaleRows(groups));
    for (int32_t r = 0; r < rows; ++r) {
      plan.row_ptr.push_back(plan.group_ptr.back() + r * static_cast<int32_t>(shape.scale_groups));
    }
    unit_ptr.push_back(unit_ptr.back() + std::max(groups, 1));
    plan.group_ptr.push_back(plan.group_ptr.back() + groups);
    plan.scale_ptr.push_back(plan.scale_ptr.back() + rows);
  }
  plan.row_ptr.push_back(plan.group_ptr.back());

  const int64_t units = unit_ptr.back();
  const auto step = static_cast<int32_t>(std::max<int64_t>(shape.scale_groups, 1));
  std::vector<int32_t> start;  // in units
  std::vector<int32_t> segments(static_cast<size_t>(panels), 0);
  size_t panel = 0;
  for (int64_t w = 0; w < workers; ++w) {
    const auto unit = static_cast<int32_t>(units * w / workers);
    while (unit >= unit_ptr[panel + 1]) ++panel;
    const int32_t row = (unit - unit_ptr[panel]) / step, place = row * step;
    if (!start.empty() && start.back() == unit_ptr[panel] + place) continue;
    start.push_back(unit_ptr[panel] + place);
    plan.worker.push_back({plan.group_ptr[panel] + place, plan.scale_ptr[panel] + row,
                           static_cast<int32_t>(panel), 0, 0});
  }
  plan.workers = static_cast<int32_t>(start.size());
  start.push_back(static_cast<int32_t>(units));
  const auto end = static_cast<int32_t>(panels);
  plan.worker.push_back({plan.group_ptr.back(), plan.scale_ptr.back(), end, end, 0});
  for (size_t w = 0; w + 1 < plan.worker.size(); ++w) {
    Worker& worker = plan.worker[w];
    auto p = static_cast<size_t>(worker.first_panel);
    worker.segment = segments[p];
    for (; p < segments.size() && unit_ptr[p] < start[w + 1]; ++p) {
      worker.last_panel = static_cast<int32_t>(p);
      ++segments[p];
    }
  }
  plan.slot_ptr.push_back(0);
  for (const int32_t count : segments) {
    plan.slot_ptr.push_back(plan.slot_ptr.back() + (count > 1 ? count : 0));
  }
  plan.slots = plan.slot_ptr.back();

  plan.runs = !shape.sparse || AreRuns(shape, blocks);
  for (const int32_t shared : {4, 2}) {
    if (shared > most_panels) continue;
    if (shared == 2 && shape.scale_groups > 0) break;  // no kernel for that
    if (!shape.sparse || (plan.runs && ShareInputs(shape, blocks, shared))) {
      plan.shared_panels = shared;
      break;
    }
  }
  plan.tile_order.resize(
      static_cast<size_t>((panels + plan.shared_panels - 1) / plan.shared_panels));
  std::iota(plan.tile_order.begin(), plan.tile_order.end(), 0);
  std::stable_sort(plan.tile_order.begin(), plan.tile_order.end(), [&](int32_t a, int32_t b) {
    const auto groups = [&](int32_t tile) {
      const auto p = static_cast<size_t>(tile * plan.shared_panels);
      return plan.group_ptr[p + 1] - plan.group_ptr[p];
    };
    return groups(a) > groups(b);
  });
  return plan;
}

}  // namespace sparsefuse::cuda

#include "kernels/linear/driver.h"

#include <algorithm>

#include "kernels/linear/gate.h"

namespace sparsefuse {
namespace {

// Copies `count` floats and fills up to `padded` with zeros.
void CopyPadded(const float* from, int64_t count, float* to, int64_t padded) noexcept {
  std::copy(from, from + count, to);
  std::fill(to + count, to + padded, 0.0f);
}

}  // namespace

int64_t ScaleRowCount(const LinearWeights& weights) noexcept {
  const LinearShape& shape = weights.shape;
  int64_t rows = 0;
  for (int64_t p = 0; p < shape.panels(); ++p) {
    rows += shape.ScaleRows(weights.FirstGroup(p + 1) - weights.FirstGroup(p));
  }
  return rows;
}

void PrepareConstants(const LinearWeights& weights, const ConstantPlaces& places,
                      std::byte* prepared) noexcept {
  const LinearShape& shape = weights.shape;
  if (weights.smooth) {
    CopyPadded(weights.smooth, shape.inputs, At<float>(prepared, places.smooth),
               CodeQuads(shape) * 4);
  }
  CopyPadded(weights.bias, shape.outputs, At<float>(prepared, places.bias),
             shape.panels() * kPanelOutputs);
  int64_t scale_row = 0;
  for (int64_t p = 0; p < shape.panels(); ++p) {
    LinearPanel& panel = At<LinearPanel>(prepared, places.panel)[p];
    panel.group = weights.FirstGroup(p);
    panel.groups = weights.FirstGroup(p + 1) - panel.group;
    panel.scale_row = scale_row;
    panel.scale_rows = shape.ScaleRows(panel.groups);
    scale_row += panel.scale_rows;
  }
  auto* scale = At<float>(prepared, places.scale);
  for (int64_t i = 0; i < scale_row * kPanelOutputs; ++i) {
    scale[i] = DecodeScale(weights.scale_base, weights.scale_code[i]);
  }
}

LinearJob MakeJob(const LinearShape& shape, bool smoothed, const ConstantPlaces& places,
                  const std::byte* prepared, const LinearRun& run) noexcept {
  return {.encoding = shape.encoding,
          .inputs = shape.inputs,
          .outputs = shape.outputs,
          .quads = CodeQuads(shape),
          .groups_per_scale = shape.scale_groups == 0 ? kMaxInputs : shape.scale_groups,
          .panel = At<LinearPanel>(prepared, places.panel),
          .quad = nullptr,
          .smooth = smoothed ? At<float>(prepared, places.smooth) : nullptr,
          .scale = At<float>(prepared, places.scale),
          .bias = At<float>(prepared, places.bias),
          .weight = nullptr,
          .plane_bytes = 0,
          .rows = run.rows,
          .easy = 0,
          .order = nullptr,
          .x = run.x,
          .y = run.y,
          .half = run.half,
          .activation = run.activation,
          .row_scale = nullptr};
}

int64_t SortByGate(const float* gate, const LinearJob& job, int64_t* order) noexcept {
  const size_t element = job.half ? sizeof(uint16_t) : sizeof(float);
  const auto* x = static_cast<const std::byte*>(job.x);
  int64_t easy = 0, hard = job.rows;
  for (int64_t r = 0; r < job.rows; ++r) {
    const std::byte* row = x + static_cast<size_t>(r * job.inputs) * element;
    const bool is_easy = IsEasyRow(gate, row, job.half, job.smooth, job.inputs);
    order[is_easy ? easy++ : --hard] = r;
  }
  return easy;
}

int64_t CountGroups(const LinearJob& job) noexcept {
  const LinearPanel& last = job.panel[PanelCount(job.outputs) - 1];
  return last.group + last.groups;
}

int64_t FirstPanel(const LinearJob& job, int64_t share, int64_t shares) noexcept {
  const int64_t panels = PanelCount(job.outputs);
  if (share == shares) return panels;
  const int64_t group = CountGroups(job) * share / shares;
  const LinearPanel* found = std::lower_bound(
      job.panel, job.panel + panels, group,
      [](const LinearPanel& panel, int64_t g) noexcept { return panel.group < g; });
  return found - job.panel;
}

}  // namespace sparsefuse

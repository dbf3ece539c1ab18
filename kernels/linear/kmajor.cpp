#include "kernels/linear/kmajor.h"

#include <algorithm>
#include <cstring>

namespace sparsefuse {
namespace {

// Work below this many products is not split: about 10 µs.
constexpr int64_t kProductsPerTask = int64_t{1} << 20;
// Tasks a thread, so that a slow thread delays nobody.
constexpr int64_t kTasksPerThread = 4;
// Rows a task, at least, when it reads all weights: fewer would make it wait for them.
constexpr int64_t kRowsPerTask = 16;
// Activations quantised by one task, at least: about 20 µs.
constexpr int64_t kCodesPerTask = int64_t{1} << 16;
// Codes of the rows that meet all weights before the next rows do: they stay in the second-level
// cache.
constexpr int64_t kBlockBytes = int64_t{128} << 10;

constexpr int64_t CeilDivide(int64_t a, int64_t b) noexcept { return (a + b - 1) / b; }

constexpr size_t Align(size_t bytes) noexcept {
  return (bytes + kLinearAlignment - 1) / kLinearAlignment * kLinearAlignment;
}

// Offsets of the arrays in `prepared`. The first word says whether there is a smooth vector.
struct Prepared {
  explicit Prepared(const LinearShape& shape) noexcept {
    const auto inputs = static_cast<size_t>(shape.groups() * kGroupInputs);
    const auto outputs = static_cast<size_t>(shape.panels() * kPanelOutputs);
    const auto scales = outputs * static_cast<size_t>(shape.scale_rows_per_panel());
    smooth = kLinearAlignment;
    scale = smooth + Align(inputs * sizeof(float));
    bias = scale + Align(scales * sizeof(float));
    column_start = bias + Align(outputs * sizeof(float));
    weight = column_start + Align(scales * sizeof(int32_t));
    bytes = weight + outputs * inputs;
  }
  size_t smooth, scale, bias, column_start, weight, bytes;
};

// Offsets of the arrays in the workspace.
struct Workspace {
  Workspace(const KMajorIsa& isa, const LinearShape& shape, int64_t rows) noexcept {
    const auto count = static_cast<size_t>(rows);
    row_scale =
        Align(count * static_cast<size_t>(shape.groups() * kGroupInputs / 4 * isa.quad_bytes));
    row_surplus = row_scale + Align(count * sizeof(float));
    bytes =
        row_surplus + count * static_cast<size_t>(shape.scale_rows_per_panel()) * sizeof(int32_t);
  }
  size_t row_scale, row_surplus, bytes;
};

// One run, and how it is cut: tasks of row_step rows × panel_step panels, row-major.
struct Plan {
  const KMajorIsa& isa;
  const KMajorJob& job;
  int64_t panels;
  int64_t row_step, panel_step;

  int64_t row_tasks() const noexcept { return CeilDivide(job.rows, row_step); }
  int64_t panel_tasks() const noexcept { return CeilDivide(panels, panel_step); }
};

void QuantizeTask(const Plan& plan, int64_t task) noexcept {
  const int64_t first = task * plan.row_step;
  plan.isa.quantize(plan.job, first, std::min(first + plan.row_step, plan.job.rows));
}

void MultiplyTask(const Plan& plan, int64_t task) noexcept {
  const int64_t row = task / plan.panel_tasks() * plan.row_step;
  const int64_t panel = task % plan.panel_tasks() * plan.panel_step;
  plan.isa.multiply(plan.job, row, std::min(row + plan.row_step, plan.job.rows), panel,
                    std::min(panel + plan.panel_step, plan.panels));
}

// Rows that nobody else quantises: block by block, so that codes are read while they are in cache.
void WholeRowsTask(const Plan& plan, int64_t task) noexcept {
  const KMajorIsa& isa = plan.isa;
  const int64_t tile_bytes = isa.tile_rows * plan.job.quads * isa.quad_bytes;
  const int64_t block = std::max<int64_t>(kBlockBytes / tile_bytes, 1) * isa.tile_rows;
  const int64_t last = std::min((task + 1) * plan.row_step, plan.job.rows);
  for (int64_t row = task * plan.row_step; row < last; row += block) {
    const int64_t end = std::min(row + block, last);
    isa.quantize(plan.job, row, end);
    isa.multiply(plan.job, row, end, 0, plan.panels);
  }
}

void ForEachTask(const ParallelFor& parallel, const Plan& plan, int64_t tasks,
                 void (*body)(const Plan&, int64_t) noexcept) noexcept {
  if (tasks == 1) return body(plan, 0);
  struct Call {
    const Plan& plan;
    void (*body)(const Plan&, int64_t) noexcept;
  } call{plan, body};
  parallel.run(
      parallel.pool, static_cast<size_t>(tasks),
      [](void* context, size_t i) {
        const Call& c = *static_cast<const Call*>(context);
        c.body(c.plan, static_cast<int64_t>(i));
      },
      &call);
}

void Execute(Plan plan, const ParallelFor& parallel) noexcept {
  const KMajorJob& job = plan.job;
  const int64_t tile = plan.isa.tile_rows;
  const auto whole_tiles = [tile](int64_t rows) { return CeilDivide(rows, tile) * tile; };
  const int64_t products = job.rows * job.quads * 4 * plan.panels * kPanelOutputs;
  const int64_t wanted = std::clamp<int64_t>(products / kProductsPerTask, 1,
                                             kTasksPerThread * std::max(parallel.threads, 1));
  if (wanted == 1 || job.rows >= wanted * kRowsPerTask) {
    plan.row_step = whole_tiles(CeilDivide(job.rows, wanted));
    return ForEachTask(parallel, plan, plan.row_tasks(), WholeRowsTask);
  }
  // Few rows: all threads need the codes of all of them.
  const int64_t codes = job.rows * job.quads * 4;
  plan.row_step = whole_tiles(CeilDivide(job.rows, std::min(wanted, 1 + codes / kCodesPerTask)));
  ForEachTask(parallel, plan, plan.row_tasks(), QuantizeTask);
  const int64_t row_parts =
      std::min(CeilDivide(wanted, plan.panels), CeilDivide(job.rows, kRowsPerTask));
  plan.row_step = whole_tiles(CeilDivide(job.rows, row_parts));
  plan.panel_step = CeilDivide(plan.panels, CeilDivide(wanted, row_parts));
  ForEachTask(parallel, plan, plan.row_tasks() * plan.panel_tasks(), MultiplyTask);
}

template <typename T>
const T* At(const std::byte* base, size_t offset) noexcept {
  return reinterpret_cast<const T*>(base + offset);
}
template <typename T>
T* At(std::byte* base, size_t offset) noexcept {
  return reinterpret_cast<T*>(base + offset);
}

// Copies `count` floats and fills up to `padded` with zeros.
void CopyPadded(const float* from, int64_t count, float* to, int64_t padded) noexcept {
  std::copy(from, from + count, to);
  std::fill(to + count, to + padded, 0.0f);
}

}  // namespace

size_t KMajorPreparedBytes(const LinearShape& shape) noexcept { return Prepared(shape).bytes; }

void KMajorPrepare(const KMajorIsa& isa, const LinearWeights& weights,
                   std::byte* prepared) noexcept {
  const LinearShape& shape = weights.shape;
  const Prepared offsets(shape);
  *At<uint64_t>(prepared, 0) = weights.smooth ? 1 : 0;
  if (weights.smooth) {
    CopyPadded(weights.smooth, shape.inputs, At<float>(prepared, offsets.smooth),
               shape.groups() * kGroupInputs);
  }
  CopyPadded(weights.bias, shape.outputs, At<float>(prepared, offsets.bias),
             shape.panels() * kPanelOutputs);
  const int64_t scale_rows = shape.scale_rows_per_panel();
  auto* scale = At<float>(prepared, offsets.scale);
  for (int64_t i = 0; i < shape.panels() * scale_rows * kPanelOutputs; ++i) {
    scale[i] = DecodeScale(weights.scale_base, weights.scale_code[i]);
  }
  auto* start = At<int32_t>(prepared, offsets.column_start);
  const int64_t panel_bytes = shape.groups() * kGroupBytes8;
  for (int64_t p = 0; p < shape.panels(); ++p) {
    const int8_t* panel = weights.weight + p * panel_bytes;
    isa.repack(panel, shape.groups(), prepared + offsets.weight + p * panel_bytes);
    for (int64_t g = 0; g < shape.groups(); g += shape.groups_per_scale()) {
      isa.column_start(panel + g * kGroupBytes8,
                       std::min(shape.groups_per_scale(), shape.groups() - g), start);
      start += kPanelOutputs;
    }
  }
}

size_t KMajorWorkspaceBytes(const KMajorIsa& isa, const LinearShape& shape, int64_t rows) noexcept {
  return Workspace(isa, shape, rows).bytes;
}

void KMajorRun(const KMajorIsa& isa, const LinearShape& shape, const std::byte* prepared,
               const LinearRun& run) noexcept {
  if (run.rows == 0) return;
  const Prepared constants(shape);
  const Workspace workspace(isa, shape, run.rows);
  const bool smooth = *At<uint64_t>(prepared, 0) != 0;
  const KMajorJob job = {
      .inputs = shape.inputs,
      .outputs = shape.outputs,
      .quads = shape.groups() * kGroupInputs / 4,
      .quads_per_scale = shape.groups_per_scale() * kGroupInputs / 4,
      .scale_rows = shape.scale_rows_per_panel(),
      .smooth = smooth ? At<float>(prepared, constants.smooth) : nullptr,
      .scale = At<float>(prepared, constants.scale),
      .bias = At<float>(prepared, constants.bias),
      .weight = prepared + constants.weight,
      .column_start = At<int32_t>(prepared, constants.column_start),
      .rows = run.rows,
      .x = run.x,
      .y = run.y,
      .codes = run.workspace,
      .row_scale = At<float>(run.workspace, workspace.row_scale),
      .row_surplus = At<int32_t>(run.workspace, workspace.row_surplus),
  };
  Execute({.isa = isa,
           .job = job,
           .panels = shape.panels(),
           .row_step = run.rows,
           .panel_step = shape.panels()},
          run.parallel);
}

}  // namespace sparsefuse

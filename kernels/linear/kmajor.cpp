#include "kernels/linear/kmajor.h"

#include <algorithm>
#include <cstring>

#include "kernels/linear/driver.h"
#include "kernels/linear/gate.h"  // kGateHeader

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

// Scale rows of every panel of a dense layer.
int64_t DenseScaleRows(const LinearShape& shape) noexcept {
  return shape.sparse ? 0 : shape.ScaleRows(GroupsPerPanel(shape.inputs));
}

// What prepared memory begins with: a run has nothing else to tell how long its arrays are.
struct Header {
  const KMajorIsa* isa;
  int64_t groups, scale_rows, gate_floats;
  bool smoothed;
};

Header MakeHeader(const LinearWeights& weights) noexcept {
  const LinearShape& shape = weights.shape;
  return {.isa = nullptr,
          .groups = weights.GroupCount(),
          .scale_rows = ScaleRowCount(weights),
          .gate_floats =
              weights.gate ? kGateHeader + static_cast<int64_t>(weights.gate[3]) * shape.inputs : 0,
          .smoothed = weights.smooth != nullptr};
}

// Whether KMajorIsas::bounded takes these weights, in all their readings.
bool AreBounded(const LinearWeights& weights) noexcept {
  if (weights.shape.encoding == Encoding::kNested1) return false;
  if (weights.shape.encoding != Encoding::kInt8) return true;  // at most 40 each
  const auto* w = reinterpret_cast<const int8_t*>(weights.weight);
  const int8_t* end = w + weights.GroupCount() * kGroupWeights;
  bool bounded = true;
  for (; w != end; w += 2) {
    const int positive = std::max<int>(w[0], 0) + std::max<int>(w[1], 0);
    const int negative = std::min<int>(w[0], 0) + std::min<int>(w[1], 0);
    bounded &= positive <= 128 && negative >= -128;
  }
  return bounded;
}

Places AfterHeader() noexcept {
  Places places;
  places.Add<Header>(1);
  return places;
}

// Offsets of the arrays in prepared memory.
struct Prepared {
  Prepared(const LinearShape& shape, const Header& header) noexcept
      : constants(places, shape, header.smoothed, header.scale_rows) {
    const bool nested = IsNested(shape.encoding);
    quad = places.Add<uint16_t>(shape.sparse ? header.groups * kGroupQuads : 0);
    column_start = places.Add<int32_t>(header.scale_rows * kPanelOutputs);
    high_column_start = places.Add<int32_t>(nested ? header.scale_rows * kPanelOutputs : 0);
    gate = places.Add<float>(header.gate_floats);
    weight = places.Add<std::byte>(header.groups * GroupBytes(shape.encoding));
    bytes = places.bytes();
  }
  Places places = AfterHeader();
  ConstantPlaces constants;
  size_t quad, column_start, high_column_start, gate, weight, bytes;
};

// Offsets of the arrays in the workspace.
struct Workspace {
  Workspace(const KMajorIsa& isa, const LinearShape& shape, int64_t rows) noexcept {
    int64_t quad_bytes = rows * isa.quad_bytes;
    // Two groups of rows, easy and not, may each end in a part of a tile.
    if (shape.sparse) quad_bytes += (CeilDivide(rows, isa.tile_rows) + 1) * isa.surplus_bytes;
    Places places;
    codes = places.Add<std::byte>(CodeQuads(shape) * quad_bytes);
    row_scale = places.Add<float>(rows);
    row_surplus = places.Add<int32_t>(rows * DenseScaleRows(shape));
    order = places.Add<int64_t>(IsNested(shape.encoding) ? rows : 0);
    bytes = places.bytes();
  }
  size_t codes, row_scale, row_surplus, order, bytes;
};

// One run, and how it is cut: tasks of row_step rows × a share of the panels, row-major.
struct Plan {
  const KMajorIsa& isa;
  const KMajorJob& job;
  int64_t panels;
  int64_t row_step, panel_tasks;

  int64_t row_tasks() const noexcept { return CeilDivide(job.rows, row_step); }
};

void QuantizeTask(const Plan& plan, int64_t task) noexcept {
  const int64_t first = task * plan.row_step;
  plan.isa.quantize(plan.job, first, std::min(first + plan.row_step, plan.job.rows));
}

void MultiplyTask(const Plan& plan, int64_t task) noexcept {
  const int64_t row = task / plan.panel_tasks * plan.row_step;
  const int64_t share = task % plan.panel_tasks;
  plan.isa.multiply(plan.job, row, std::min(row + plan.row_step, plan.job.rows),
                    FirstPanel(plan.job, share, plan.panel_tasks),
                    FirstPanel(plan.job, share + 1, plan.panel_tasks));
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

void Execute(Plan plan, const ParallelFor& parallel) noexcept {
  const KMajorJob& job = plan.job;
  const int64_t tile = plan.isa.tile_rows;
  const auto whole_tiles = [tile](int64_t rows) { return CeilDivide(rows, tile) * tile; };
  const int64_t products = job.rows * std::max<int64_t>(CountGroups(job), 1) * kGroupWeights;
  const int64_t wanted = std::clamp<int64_t>(products / kProductsPerTask, 1,
                                             kTasksPerThread * std::max(parallel.threads, 1));
  // Tiles of easy rows and of the others do not share a grid.
  const bool one_grid = job.easy == 0 || job.easy == job.rows;
  if (wanted == 1 || (one_grid && job.rows >= wanted * kRowsPerTask)) {
    plan.row_step = one_grid ? whole_tiles(CeilDivide(job.rows, wanted)) : job.rows;
    return ForEachTask(parallel, plan, plan.row_tasks(), WholeRowsTask);
  }
  // Few rows: all threads need the codes of all of them.
  if (one_grid) {
    const int64_t codes = job.rows * job.quads * 4;
    plan.row_step = whole_tiles(CeilDivide(job.rows, std::min(wanted, 1 + codes / kCodesPerTask)));
  }
  ForEachTask(parallel, plan, plan.row_tasks(), QuantizeTask);
  int64_t row_parts = 1;
  if (one_grid) {
    row_parts = std::min(CeilDivide(wanted, plan.panels), CeilDivide(job.rows, kRowsPerTask));
    plan.row_step = whole_tiles(CeilDivide(job.rows, row_parts));
  }
  plan.panel_tasks = std::min(plan.panels, CeilDivide(wanted, row_parts));
  ForEachTask(parallel, plan, plan.row_tasks() * plan.panel_tasks, MultiplyTask);
}

// start[r] −= factor · Σ of the weights of output r in one group; nested ones read in 4 bits if
// `high_only`.
void SubtractColumnSums(Encoding encoding, const std::byte* group, const std::byte* low,
                        bool high_only, int64_t factor, int32_t* start) noexcept {
  for (int64_t r = 0; r < kPanelOutputs; ++r) {
    const int shift = encoding != Encoding::kInt8 && r >= 16 ? 4 : 0;
    const int64_t row = (shift ? r - 16 : r) * kGroupInputs;
    int64_t sum = 0;
    for (int64_t i = row; i < row + kGroupInputs; ++i) {
      const auto high = static_cast<int8_t>(group[i]);
      if (encoding == Encoding::kInt8) {
        sum += high;
        continue;
      }
      const int top = static_cast<uint8_t>(high) >> shift & 15;
      if (encoding == Encoding::kInt4) {
        sum += (top ^ 8) - 8;
        continue;
      }
      const int bottom = static_cast<uint8_t>(low[i]) >> shift & 15;
      const auto code = static_cast<int8_t>(top << 4 | bottom);
      sum += high_only ? DecodeHigh(encoding, code) : DecodeWeight(encoding, code);
    }
    start[r] -= static_cast<int32_t>(factor * sum);
  }
}

// Column starts of all scale rows of one panel.
void FillColumnStarts(const LinearWeights& weights, const LinearPanel& panel, int64_t factor,
                      bool high_only, int32_t* start) noexcept {
  const LinearShape& shape = weights.shape;
  const int64_t plane = PlaneBytes(shape.encoding);
  std::fill_n(start, panel.scale_rows * kPanelOutputs, 0);
  if (factor == 0) return;
  const std::byte* high = weights.weight + panel.group * plane;
  const std::byte* low = high + weights.GroupCount() * plane;  // nested only
  for (int64_t g = 0; g < panel.groups; ++g) {
    const int64_t scale_row = shape.scale_groups == 0 ? 0 : g / shape.scale_groups;
    SubtractColumnSums(shape.encoding, high + g * plane, low + g * plane, high_only, factor,
                       start + scale_row * kPanelOutputs);
  }
}

}  // namespace

size_t KMajorPreparedBytes(const LinearWeights& weights) noexcept {
  return Prepared(weights.shape, MakeHeader(weights)).bytes;
}

void KMajorPrepare(const KMajorIsas& isas, const LinearWeights& weights,
                   std::byte* prepared) noexcept {
  const LinearShape& shape = weights.shape;
  const KMajorIsa& isa = AreBounded(weights) ? isas.bounded : isas.any;
  Header header = MakeHeader(weights);
  header.isa = &isa;
  const Prepared offsets(shape, header);
  *At<Header>(prepared, 0) = header;
  PrepareConstants(weights, offsets.constants, prepared);
  std::copy_n(weights.gate, header.gate_floats, At<float>(prepared, offsets.gate));
  if (shape.sparse) {
    std::copy_n(weights.blocks.quad, header.groups * kGroupQuads,
                At<uint16_t>(prepared, offsets.quad));
  }
  const int64_t group_bytes = PlaneBytes(shape.encoding);
  const int64_t plane_bytes = header.groups * group_bytes;
  for (int64_t p = 0; p < shape.panels(); ++p) {
    const LinearPanel& panel = At<LinearPanel>(prepared, offsets.constants.panel)[p];
    const int64_t start = panel.scale_row * kPanelOutputs;
    FillColumnStarts(weights, panel, isa.column_factor, false,
                     At<int32_t>(prepared, offsets.column_start) + start);
    for (int plane = 0; plane < (IsNested(shape.encoding) ? 2 : 1); ++plane) {
      const int64_t place = plane * plane_bytes + panel.group * group_bytes;
      isa.repack(shape.encoding, weights.weight + place, panel.groups,
                 prepared + offsets.weight + place);
    }
    if (IsNested(shape.encoding)) {
      FillColumnStarts(weights, panel, isa.column_factor, true,
                       At<int32_t>(prepared, offsets.high_column_start) + start);
    }
  }
}

size_t KMajorWorkspaceBytes(const KMajorIsas& isas, const LinearShape& shape,
                            int64_t rows) noexcept {
  return std::max(Workspace(isas.any, shape, rows).bytes,
                  Workspace(isas.bounded, shape, rows).bytes);
}

void KMajorRun(const LinearShape& shape, const std::byte* prepared, const LinearRun& run) noexcept {
  if (run.easy_rows) *run.easy_rows = 0;
  if (run.rows == 0) return;
  const Header& header = *At<Header>(prepared, 0);
  const KMajorIsa& isa = *header.isa;
  const Prepared constants(shape, header);
  const Workspace workspace(isa, shape, run.rows);
  KMajorJob job;
  static_cast<LinearJob&>(job) =
      MakeJob(shape, header.smoothed, constants.constants, prepared, run);
  if (shape.sparse) job.quad = At<uint16_t>(prepared, constants.quad);
  job.weight = prepared + constants.weight;
  job.plane_bytes = header.groups * PlaneBytes(shape.encoding);
  job.row_scale_rows = DenseScaleRows(shape);
  job.column_start = At<int32_t>(prepared, constants.column_start);
  job.high_column_start = At<int32_t>(prepared, constants.high_column_start);
  job.codes = run.workspace + workspace.codes;
  job.row_scale = At<float>(run.workspace, workspace.row_scale);
  job.row_surplus = At<int32_t>(run.workspace, workspace.row_surplus);
  if (header.gate_floats > 0 && IsGated(run)) {
    auto* order = At<int64_t>(run.workspace, workspace.order);
    job.easy = SortByGate(At<float>(prepared, constants.gate), job, order);
    job.order = order;
    if (run.easy_rows) *run.easy_rows = job.easy;
  }
  Execute(
      {.isa = isa, .job = job, .panels = shape.panels(), .row_step = run.rows, .panel_tasks = 1},
      run.parallel);
}

}  // namespace sparsefuse

#include "kernels/linear/amx_driver.h"

#include <algorithm>

#include "kernels/linear/driver.h"

namespace sparsefuse {
namespace {

// A task has at least this many pairs of a group of weights and a block of rows: some 10 µs.
constexpr int64_t kPairsPerTask = 256;
// Tasks a thread, so that a slow thread delays nobody.
constexpr int64_t kTasksPerThread = 4;
// Codes of the rows that meet all weights before the next rows do: they stay in the second-level
// cache.
constexpr int64_t kChunkBytes = int64_t{1} << 20;

// Rows that a block's codes have room for.
constexpr int64_t PaddedRows(int64_t rows) noexcept {
  return rows <= kAmxDotRows ? rows : CeilDivide(rows, kAmxTileRows) * kAmxTileRows;
}

// The same of all blocks of `rows` rows, whichever of them are easy.
int64_t CodeRows(const LinearShape& shape, int64_t rows) noexcept {
  if (rows <= kAmxDotRows) return rows;
  // Each kind of rows may end in a part of a tile.
  if (IsNested(shape.encoding)) return rows + 2 * (kAmxTileRows - 1);
  const int64_t rest = rows % kAmxBlockRows;
  return rows - rest + PaddedRows(rest);
}

// Places in the workspace.
struct Workspace {
  Workspace(const LinearShape& shape, int64_t rows) noexcept {
    const int64_t nested = IsNested(shape.encoding) ? 1 : 0;
    Places places;
    codes = places.Add<std::byte>(CodeRows(shape, rows) * CodeQuads(shape) * 4);
    row_scale = places.Add<float>(rows);
    block = places.Add<AmxBlock>(CeilDivide(rows, kAmxBlockRows) + nested);
    order = places.Add<int64_t>(nested * rows);
    bytes = places.bytes();
  }
  size_t codes, row_scale, block, order, bytes;
};

// Cuts rows [first, last) into blocks; returns the place behind the last one. `codes` moves on.
AmxBlock* AddBlocks(int64_t quads, int64_t first, int64_t last, AmxBlock* block,
                    std::byte*& codes) noexcept {
  for (int64_t row = first; row < last; row += kAmxBlockRows, ++block) {
    *block = {.first = row, .rows = std::min(last - row, kAmxBlockRows), .codes = codes};
    codes += PaddedRows(block->rows) * quads * 4;
  }
  return block;
}

// How one run is cut: chunks of blocks × shares of the panels.
struct Plan {
  const AmxIsa& isa;
  const AmxJob& job;
  int64_t chunk_blocks;
  int64_t row_tasks, panel_tasks;

  int64_t chunks() const noexcept { return CeilDivide(job.blocks, chunk_blocks); }
  int64_t ChunkEnd(int64_t chunk) const noexcept {
    return std::min((chunk + 1) * chunk_blocks, job.blocks);
  }
};

// Rows that nobody else needs, chunk by chunk, so that codes are read while they are in cache.
void WholeRowsTask(const Plan& plan, int64_t task) noexcept {
  const int64_t last = plan.chunks() * (task + 1) / plan.row_tasks;
  for (int64_t chunk = plan.chunks() * task / plan.row_tasks; chunk < last; ++chunk) {
    const int64_t first = chunk * plan.chunk_blocks, end = plan.ChunkEnd(chunk);
    plan.isa.quantize(plan.job, first, end);
    plan.isa.multiply(plan.job, first, end, 0, PanelCount(plan.job.outputs));
  }
}

void QuantizeTask(const Plan& plan, int64_t task) noexcept {
  const int64_t blocks = plan.job.blocks;
  plan.isa.quantize(plan.job, blocks * task / plan.row_tasks, blocks * (task + 1) / plan.row_tasks);
}

void MultiplyTask(const Plan& plan, int64_t task) noexcept {
  const int64_t chunk = task / plan.panel_tasks, share = task % plan.panel_tasks;
  plan.isa.multiply(plan.job, chunk * plan.chunk_blocks, plan.ChunkEnd(chunk),
                    FirstPanel(plan.job, share, plan.panel_tasks),
                    FirstPanel(plan.job, share + 1, plan.panel_tasks));
}

void Execute(Plan plan, const ParallelFor& parallel) noexcept {
  const AmxJob& job = plan.job;
  const int64_t panels = PanelCount(job.outputs);
  const int64_t wanted = parallel.threads <= 1
                             ? 1
                             : std::clamp<int64_t>(CountGroups(job) * job.blocks / kPairsPerTask, 1,
                                                   kTasksPerThread * parallel.threads);
  if (plan.chunks() >= wanted) {
    plan.row_tasks = wanted;
    return ForEachTask(parallel, plan, plan.row_tasks, WholeRowsTask);
  }
  // Few rows: all threads need the codes of all of them.
  plan.row_tasks = std::min(job.blocks, wanted);
  ForEachTask(parallel, plan, plan.row_tasks, QuantizeTask);
  if (panels * plan.chunks() < wanted) plan.chunk_blocks = 1;
  plan.panel_tasks = std::min(panels, CeilDivide(wanted, plan.chunks()));
  ForEachTask(parallel, plan, plan.chunks() * plan.panel_tasks, MultiplyTask);
}

}  // namespace

size_t AmxPreparedBytes(const LinearWeights& weights) noexcept {
  Places places;
  const ConstantPlaces constants(places, weights.shape, weights.smooth, ScaleRowCount(weights));
  return places.bytes();
}

void AmxPrepare(const LinearWeights& weights, std::byte* prepared) noexcept {
  Places places;
  PrepareConstants(weights,
                   ConstantPlaces(places, weights.shape, weights.smooth, ScaleRowCount(weights)),
                   prepared);
}

size_t AmxWorkspaceBytes(const LinearShape& shape, int64_t rows) noexcept {
  return Workspace(shape, rows).bytes;
}

void AmxRun(const AmxIsa& isa, const LinearWeights& weights, const std::byte* prepared,
            const LinearRun& run) noexcept {
  if (run.easy_rows) *run.easy_rows = 0;
  if (run.rows == 0) return;
  const LinearShape& shape = weights.shape;
  const Workspace workspace(shape, run.rows);
  Places places;
  const ConstantPlaces constants(places, shape, weights.smooth, 0);  // the scales come last
  AmxJob job;
  static_cast<LinearJob&>(job) = MakeJob(shape, weights.smooth, constants, prepared, run);
  if (shape.sparse) job.quad = weights.blocks.quad;
  job.weight = weights.weight;
  job.plane_bytes = CountGroups(job) * PlaneBytes(shape.encoding);
  job.row_scale = At<float>(run.workspace, workspace.row_scale);
  if (weights.gate && IsGated(run)) {
    auto* order = At<int64_t>(run.workspace, workspace.order);
    job.easy = SortByGate(weights.gate, job, order);
    job.order = order;
    if (run.easy_rows) *run.easy_rows = job.easy;
  }
  auto* block = At<AmxBlock>(run.workspace, workspace.block);
  std::byte* codes = run.workspace + workspace.codes;
  AmxBlock* hard = AddBlocks(job.quads, 0, job.easy, block, codes);
  AmxBlock* end = AddBlocks(job.quads, job.easy, job.rows, hard, codes);
  job.block = block;
  job.blocks = end - block;
  job.easy_blocks = hard - block;
  const int64_t block_bytes = kAmxBlockRows * job.quads * 4;
  Execute({.isa = isa,
           .job = job,
           .chunk_blocks = std::clamp<int64_t>(kChunkBytes / block_bytes, 1, kAmxSharedBlocks),
           .row_tasks = 1,
           .panel_tasks = 1},
          run.parallel);
}

}  // namespace sparsefuse

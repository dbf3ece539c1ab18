// What the vector kernels share: weights repacked once so that for every quad (4 consecutive
// inputs) the codes of neighbouring outputs lie together (inputs outermost, "k-major"), activations
// packed per tile of rows, and the work split over rows and panels. An instruction set brings two
// functions, both instantiated from kmajor_tile.h; everything else is here, compiled for the
// baseline.
//
// Included by files compiled for one instruction set: nothing here may be an inline function that
// such a file would emit.

#ifndef SPARSEFUSE_KERNELS_LINEAR_KMAJOR_H_
#define SPARSEFUSE_KERNELS_LINEAR_KMAJOR_H_

#include <cstddef>
#include <cstdint>

#include "kernels/linear/linear.h"

namespace sparsefuse {

// A layer as prepared and one run of it.
struct KMajorJob {
  int64_t inputs, outputs;
  int64_t quads;            // of the inputs padded to whole groups
  int64_t quads_per_scale;  // that share a row of scales
  int64_t scale_rows;       // of a panel
  const float* smooth;      // [4·quads], or null for ones
  const float* scale;       // [panels, scale_rows, 32]
  const float* bias;        // [panels, 32]
  const std::byte* weight;  // [panels], each in the instruction set's order
  // Where the integer sums start: [panels, scale_rows, 32], minus what the arithmetic of the
  // instruction set adds for the column whatever the activations are.
  const int32_t* column_start;

  int64_t rows;
  const float* x;
  float* y;
  // Tiles of Isa::tile_rows rows (the last may be smaller), each [quads][rows of the tile] of
  // Isa::quad_bytes.
  std::byte* codes;
  float* row_scale;      // [rows]: s
  int32_t* row_surplus;  // [rows, scale_rows]: what the arithmetic adds for the row; subtracted
};

struct KMajorIsa {
  int64_t tile_rows;
  int64_t quad_bytes;  // of one row
  // One panel of layout 1 (groups · 2,048 bytes) to the order that `multiply` reads, same size.
  void (*repack)(const int8_t* panel, int64_t groups, std::byte* out) noexcept;
  // The 32 column starts of one scale row: its groups of one panel of layout 1.
  void (*column_start)(const int8_t* first_group, int64_t groups, int32_t* start) noexcept;
  // Rows [first, last) of x to codes, row_scale, row_surplus. `first` is a multiple of tile_rows.
  void (*quantize)(const KMajorJob& job, int64_t first, int64_t last) noexcept;
  // Rows [first, last) of y, as above, columns of the panels [first_panel, last_panel).
  void (*multiply)(const KMajorJob& job, int64_t first, int64_t last, int64_t first_panel,
                   int64_t last_panel) noexcept;
};

size_t KMajorPreparedBytes(const LinearShape& shape) noexcept;
void KMajorPrepare(const KMajorIsa& isa, const LinearWeights& weights,
                   std::byte* prepared) noexcept;
size_t KMajorWorkspaceBytes(const KMajorIsa& isa, const LinearShape& shape, int64_t rows) noexcept;
void KMajorRun(const KMajorIsa& isa, const LinearShape& shape, const std::byte* prepared,
               const LinearRun& run) noexcept;

// The functions of LinearKernel carry no state, so each instruction set gets its own.
template <const KMajorIsa& isa>
struct KMajorKernel {
  static void Prepare(const LinearWeights& weights, std::byte* prepared) noexcept {
    KMajorPrepare(isa, weights, prepared);
  }
  static size_t WorkspaceBytes(const LinearShape& shape, int64_t rows) noexcept {
    return KMajorWorkspaceBytes(isa, shape, rows);
  }
  static void Run(const LinearWeights& weights, const std::byte* prepared,
                  const LinearRun& run) noexcept {
    KMajorRun(isa, weights.shape, prepared, run);
  }
  static constexpr LinearKernel Make(const char* name, CpuFeatures needs) noexcept {
    return {.name = name,
            .needs = needs,
            .reads_weights = false,
            .prepared_bytes = KMajorPreparedBytes,
            .prepare = Prepare,
            .workspace_bytes = WorkspaceBytes,
            .run = Run};
  }
};

}  // namespace sparsefuse

#endif  // SPARSEFUSE_KERNELS_LINEAR_KMAJOR_H_

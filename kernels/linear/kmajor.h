// What the vector kernels share: weights repacked once so that for every quad (4 consecutive
// inputs) the codes of neighbouring outputs lie together (inputs outermost, "k-major"), activations
// packed per tile of rows, and the work split over rows and panels. An instruction set brings three
// functions, all instantiated from kmajor_tile.h; everything else is here, compiled for the
// baseline.
//
// Included by files compiled for one instruction set: nothing here may be an inline function that
// such a file would emit.

#ifndef SPARSEFUSE_KERNELS_LINEAR_KMAJOR_H_
#define SPARSEFUSE_KERNELS_LINEAR_KMAJOR_H_

#include <cstddef>
#include <cstdint>

#include "kernels/linear/job.h"

namespace sparsefuse {

// One run, with what only these kernels have.
struct KMajorJob : LinearJob {
  int64_t row_scale_rows;  // dense: scale rows of every panel; sparse: 0
  // Where the integer sums start: [S, 32], minus what the arithmetic of the instruction set adds
  // for the column whatever the activations are. For nested encodings also in the 4-bit reading.
  const int32_t* column_start;
  const int32_t* high_column_start;
  // Tiles of Isa::tile_rows rows (the last easy one and the last may be smaller), each
  // [quads][Isa::quad_bytes of each row; sparse: Isa::surplus_bytes].
  std::byte* codes;
  int32_t* row_surplus;  // dense: [rows, scale rows]: what the arithmetic adds for the row
};

struct KMajorIsa {
  int64_t tile_rows;
  int64_t quad_bytes;     // of one row
  int64_t surplus_bytes;  // of a quad of a tile, sparse only
  int64_t column_factor;  // what the arithmetic adds for a column, in units of its sum of weights
  // One panel of one plane in layout 1 to the order that `multiply` reads, same size.
  void (*repack)(Encoding encoding, const std::byte* panel, int64_t groups,
                 std::byte* out) noexcept;
  // Rows [first, last) to codes, row_scale, row_surplus. `first` begins a tile.
  void (*quantize)(const KMajorJob& job, int64_t first, int64_t last) noexcept;
  // Rows [first, last) of y, as above, columns of the panels [first_panel, last_panel).
  void (*multiply)(const KMajorJob& job, int64_t first, int64_t last, int64_t first_panel,
                   int64_t last_panel) noexcept;
};

// How one CPU computes: `any` takes all weights; `bounded`, which may be faster, only those of
// which two neighbours never come to more than 128 in magnitude when they have the same sign, so
// that 255 times them fits into 16 bits.
struct KMajorIsas {
  const KMajorIsa& any;
  const KMajorIsa& bounded;
};

size_t KMajorPreparedBytes(const LinearWeights& weights) noexcept;
void KMajorPrepare(const KMajorIsas& isas, const LinearWeights& weights,
                   std::byte* prepared) noexcept;
size_t KMajorWorkspaceBytes(const KMajorIsas& isas, const LinearShape& shape,
                            int64_t rows) noexcept;
void KMajorRun(const LinearShape& shape, const std::byte* prepared, const LinearRun& run) noexcept;

// The functions of LinearKernel carry no state, so each CPU gets its own.
template <const KMajorIsas& isas>
struct KMajorKernel {
  static void Prepare(const LinearWeights& weights, std::byte* prepared) noexcept {
    KMajorPrepare(isas, weights, prepared);
  }
  static size_t WorkspaceBytes(const LinearShape& shape, int64_t rows) noexcept {
    return KMajorWorkspaceBytes(isas, shape, rows);
  }
  static void Run(const LinearWeights& weights, const std::byte* prepared,
                  const LinearRun& run) noexcept {
    KMajorRun(weights.shape, prepared, run);
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

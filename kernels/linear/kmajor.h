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

#include "kernels/linear/linear.h"

namespace sparsefuse {

struct KMajorPanel {
  int64_t group, scale_row;    // the first ones
  int64_t groups, scale_rows;  // how many
};

// A layer as prepared and one run of it. Rows are counted in the order in which they are worked
// on, which is `order` where there is one: rows read in 4 bits first.
struct KMajorJob {
  Encoding encoding;
  int64_t inputs, outputs;
  int64_t quads;            // of a row's codes: inputs padded, and for sparse layers 64 zeros more
  int64_t quads_per_scale;  // stored, that share a row of scales
  int64_t row_scale_rows;   // dense: scale rows of every panel; sparse: 0
  const KMajorPanel* panel;
  const uint16_t* quad;     // [16·groups], or null: dense
  const float* smooth;      // [4·quads], or null for ones
  const float* scale;       // [S, 32], of the integer sums
  const float* bias;        // [panels, 32]
  const std::byte* weight;  // panels in order, each in the instruction set's order; per plane
  int64_t plane_bytes;      // to the plane of low parts
  // Where the integer sums start: [S, 32], minus what the arithmetic of the instruction set adds
  // for the column whatever the activations are. For nested encodings also in the 4-bit reading.
  const int32_t* column_start;
  const int32_t* high_column_start;

  int64_t rows;
  int64_t easy;          // the first rows, read in 4 bits
  const int64_t* order;  // [rows]: index in x and y; or null: as they come
  const void* x;
  void* y;
  bool half;
  Activation activation;
  // Tiles of Isa::tile_rows rows (the last easy one and the last may be smaller), each
  // [quads][Isa::quad_bytes of each row; sparse: Isa::surplus_bytes].
  std::byte* codes;
  float* row_scale;      // [rows]: s
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

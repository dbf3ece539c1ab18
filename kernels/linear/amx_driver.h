// The tile kernel but for its arithmetic: constants that it prepares, rows in blocks, the work
// split over blocks and panels. Weights are read where they lie in the file. amx_tile.h is the
// arithmetic.
//
// Included by files compiled for one instruction set: nothing here may be an inline function that
// such a file would emit.

#ifndef SPARSEFUSE_KERNELS_LINEAR_AMX_DRIVER_H_
#define SPARSEFUSE_KERNELS_LINEAR_AMX_DRIVER_H_

#include <cstddef>
#include <cstdint>

#include "kernels/linear/job.h"

namespace sparsefuse {

inline constexpr int64_t kAmxTileRows = 16;                 // of activations, in one tile
inline constexpr int64_t kAmxBlockRows = 2 * kAmxTileRows;  // that meet a group of weights at once
inline constexpr int64_t kAmxDotRows = 4;  // so few are multiplied without the tile unit
// Blocks that share decoded weights.
inline constexpr int64_t kAmxSharedBlocks = 4;

// Rows [first, first + rows), all easy or none, rows ≤ kAmxBlockRows. Their codes, signed bytes:
//   rows ≤ kAmxDotRows   [rows][quads]           dwords, a quad each
//   rows ≤ kAmxTileRows  [quads][kAmxTileRows]   "
//   more                 [quads][kAmxBlockRows]  "
struct AmxBlock {
  int64_t first, rows;
  std::byte* codes;
};

struct AmxJob : LinearJob {
  const AmxBlock* block;
  int64_t blocks, easy_blocks;  // the easy ones are first
};

struct AmxIsa {
  // Blocks [first, last) to their codes and row_scale.
  void (*quantize)(const AmxJob& job, int64_t first, int64_t last) noexcept;
  // At most kAmxSharedBlocks blocks [first, last) of y, columns of the panels
  // [first_panel, last_panel).
  void (*multiply)(const AmxJob& job, int64_t first, int64_t last, int64_t first_panel,
                   int64_t last_panel) noexcept;
};

size_t AmxPreparedBytes(const LinearWeights& weights) noexcept;
void AmxPrepare(const LinearWeights& weights, std::byte* prepared) noexcept;
size_t AmxWorkspaceBytes(const LinearShape& shape, int64_t rows) noexcept;
void AmxRun(const AmxIsa& isa, const LinearWeights& weights, const std::byte* prepared,
            const LinearRun& run) noexcept;

// The functions of LinearKernel carry no state, so each AmxIsa gets its own.
template <const AmxIsa& isa>
struct AmxKernel {
  static void Run(const LinearWeights& weights, const std::byte* prepared,
                  const LinearRun& run) noexcept {
    AmxRun(isa, weights, prepared, run);
  }
  static constexpr LinearKernel Make(const char* name, CpuFeatures needs) noexcept {
    return {.name = name,
            .needs = needs,
            .reads_weights = true,
            .prepared_bytes = AmxPreparedBytes,
            .prepare = AmxPrepare,
            .workspace_bytes = AmxWorkspaceBytes,
            .run = Run};
  }
};

}  // namespace sparsefuse

#endif  // SPARSEFUSE_KERNELS_LINEAR_AMX_DRIVER_H_

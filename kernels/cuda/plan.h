// Who does what of a layer on a GPU: made once on the host, from the lists of blocks alone.
//
// Few rows (decode): the stored groups of all panels form one line, cut into equal slices, a slice
// a block of threads ("worker"); a panel that lies in several slices is the sum of as many
// segments, each written to a slot of its own and added in their order by whoever arrives last.
//
//   panels    ├─────── 0 ───────┼── 1 ──┼──────── 2 ────────┤      equal bytes whatever the pattern
//   workers   ├── 0 ──┼── 1 ──┼── 2 ──┼── 3 ──┼──── … ──────┤
//
// Many rows (prefill): a block of threads takes as many neighbouring panels as keep the same inputs
// in whole groups of 64 neighbours, so that one tile of activations serves all of them.

#ifndef SPARSEFUSE_KERNELS_CUDA_PLAN_H_
#define SPARSEFUSE_KERNELS_CUDA_PLAN_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "kernels/linear/linear.h"

namespace sparsefuse::cuda {

// A worker's slice goes from its group (row of scales) to the next worker's. It has a part in the
// panels first_panel … last_panel.
struct Worker {
  int32_t group;
  int32_t scale_row;
  int32_t first_panel, last_panel;
  int32_t segment;  // of the first panel; of the others it has the first
};

// Shared memory that a block of the few-rows kernels may take, all in all.
enum class Room : uint8_t {
  kLarge,  // twice in a multiprocessor's 228 KiB (compute capability 9.0), once in 164 KiB (8.0)
  kSmall,  // once in 100 KiB (8.6, 8.9, 12.0)
};
constexpr int32_t RoomBytes(Room room) { return (room == Room::kLarge ? 111 : 99) << 10; }
inline constexpr int32_t kSystemBytes = 1 << 10;  // that a block takes besides
inline constexpr int32_t kMaxDecodeBlocks = 2;    // registers for more are lacking
static_assert(kMaxDecodeBlocks * (RoomBytes(Room::kLarge) + kSystemBytes) <= 228 << 10);
static_assert(RoomBytes(Room::kSmall) + kSystemBytes <= 100 << 10);

// How the few-rows kernels' blocks share a multiprocessor.
struct DecodeShare {
  Room room;
  int32_t blocks;  // that run at once, 1 or 2
};
// Of one that has so many bytes of shared memory, of which a block may ask for at most so many.
// kLarge wherever it fits.
DecodeShare ShareMultiprocessor(int32_t multiprocessor_bytes, int32_t block_bytes);

// Whether the codes of so many rows (at most kDecodeRows) are expected to be 0 in every row for at
// least half of the inputs, so that it pays to read only the weights of the others
// (skip_zeros.cuh). Of dense layers with int8 or int4 weights (nested ones have their gate), whose
// rows of scales are for kSkipSpan inputs or more.
bool SkipsZeros(const LinearShape& shape, int64_t rows);
// How such a run is cut: a copy of the weights into strips of outputs, the inputs into spans of at
// most kSkipSpan that share a row of scales.
inline constexpr int32_t kSkipSpan = 512;
constexpr int32_t StripOutputs(Encoding encoding) {
  return encoding == Encoding::kInt8 ? 128 : 256;
}
struct SkipShape {
  int64_t inputs, scale_inputs;  // all, and those that share a row of scales
  int32_t strips, strip_outputs;
  int32_t scale_rows, spans_per_scale;
  constexpr int32_t spans() const { return scale_rows * spans_per_scale; }
  constexpr int64_t words() const { return strips * inputs * 32; }  // of 4 bytes, of the copy
  constexpr int64_t sums(int64_t rows) const { return scale_rows * rows * strips * strip_outputs; }
};
// Of a layer that SkipsZeros accepts with one row.
SkipShape SkipShapeOf(const LinearShape& shape);

struct Plan {
  int32_t workers = 0;
  int32_t slots = 0;               // segments of panels that have several
  bool runs = false;               // every group holds 64 neighbours that start at a multiple of 64
  int64_t input_words = 0;         // SkipShape::words where a single row skips zeros, else 0
  int32_t shared_panels = 1;       // how many panels one tile of activations serves: 4, 2 or 1
  std::vector<Worker> worker;      // [workers + 1]; the last one is the end
  std::vector<int32_t> group_ptr;  // [panels + 1]
  std::vector<int32_t> slot_ptr;   // [panels + 1]
  std::vector<int32_t> scale_ptr;  // [panels + 1]: the panel's first row of scales
  std::vector<int32_t> row_ptr;    // [rows of scales + 1]: the row's first group
  std::vector<int32_t> tile_order;  // [⌈panels / shared_panels⌉]: most groups first
};

// `blocks` in host memory, as CheckBlocks accepts them. workers ≥ 1: how many slices; fewer are
// made where there is less to cut. Slices end where a row of scales does. most_panels: that one
// tile of activations may serve.
Plan MakePlan(const LinearShape& shape, const BlockIndex& blocks, int32_t workers,
              int32_t most_panels = 4);

}  // namespace sparsefuse::cuda

#endif  // SPARSEFUSE_KERNELS_CUDA_PLAN_H_

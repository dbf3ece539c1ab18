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

struct Plan {
  int32_t workers = 0;
  int32_t slots = 0;               // segments of panels that have several
  bool runs = false;               // every group holds 64 neighbours that start at a multiple of 64
  int32_t shared_panels = 1;       // how many panels one tile of activations serves: 4, 2 or 1
  std::vector<Worker> worker;      // [workers + 1]; the last one is the end
  std::vector<int32_t> group_ptr;  // [panels + 1]
  std::vector<int32_t> slot_ptr;   // [panels + 1]
  std::vector<int32_t> scale_ptr;  // [panels + 1]: the panel's first row of scales
  std::vector<int32_t> row_ptr;    // [rows of scales + 1]: the row's first group
  std::vector<int32_t> tile_order;  // [⌈panels / shared_panels⌉]: most groups first
};

// `blocks` in host memory, as CheckBlocks accepts them. workers ≥ 1: how many slices; fewer are
// made where there is less to cut. Slices end where a row of scales does.
Plan MakePlan(const LinearShape& shape, const BlockIndex& blocks, int32_t workers);

}  // namespace sparsefuse::cuda

#endif  // SPARSEFUSE_KERNELS_CUDA_PLAN_H_

// How long a layer takes on a GPU, predicted: to choose tiles without one, and to tell the user
// what a zero pattern gains there.
//
//   few rows    t = 5 µs + bytes / (bandwidth · share); of inputs that are skipped no bytes
//   many rows   t = 5 µs + waves · (fixed + operations of a tile / (rate · share))
//               waves = ⌈tiles / multiprocessors⌉
//
// The constants come from docs/performance.md, "On a GPU" (an H200): within 13 % of every time
// there at 512 and 4096 rows, within 20 % at one. Smaller layers were not measured: there the fixed
// parts are most of a prediction. Other cards' constants come from their published numbers of
// multiprocessors, bandwidth and int8 rate and assumed shares; nothing was measured on them.

#ifndef SPARSEFUSE_PASSES_CUDA_COST_H_
#define SPARSEFUSE_PASSES_CUDA_COST_H_

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "passes/cuda/layers.h"

namespace sparsefuse {

// A target with the card that its predictions are for.
struct CudaTarget {
  std::string_view name;  // "sm_90a": what nvcc calls it
  std::string_view card;
  int64_t multiprocessors;
  double gigabytes;  // a second, read from memory
  double tops;       // dense int8
  bool wgmma;
  cuda::Room room;
};
std::span<const CudaTarget> CudaTargets();

// Microseconds for at most 8 rows; for one where the layer skips zeros.
double PredictFewRows(const CudaLayer& layer, const CudaTarget& target);

// Microseconds for so many rows by tiles of 4, 2 or 1 panels; +∞ where no kernel has them for the
// layer's pattern.
double PredictManyRows(const CudaLayer& layer, const CudaTarget& target, int64_t rows,
                       int32_t panels);

// That tiles are chosen for unless the user says otherwise.
inline constexpr int64_t kManyRows = 512;

// The panels that tiles of the layer can have, the most first.
std::vector<int32_t> TilesOf(const CudaLayer& layer);

// The panels of the quickest tile; of equals the most.
int32_t ChooseTile(const CudaLayer& layer, const CudaTarget& target, int64_t rows);

// The kernel that works on tiles of so many panels.
cuda::Step ManyRowsStep(const CudaTarget& target, int32_t panels);

}  // namespace sparsefuse

#endif  // SPARSEFUSE_PASSES_CUDA_COST_H_

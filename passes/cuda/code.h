// The pattern compiler: from a model's linear layers to compiled kernels for named architectures.

#ifndef SPARSEFUSE_PASSES_CUDA_CODE_H_
#define SPARSEFUSE_PASSES_CUDA_CODE_H_

#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "passes/cuda/cost.h"

namespace sparsefuse {

// Targets by name: "cuda:sm_90a". UserError E_USAGE with those that there are.
std::vector<const CudaTarget*> FindCudaTargets(std::span<const std::string> names);

// Of a layer of many rows, by tiles of so many panels. Microseconds.
struct TileTime {
  int32_t panels;
  double predicted;
  std::optional<double> measured;
};
using TileTimer = std::function<double(const CudaLayer& layer, int32_t panels)>;

// What is going to be compiled for one target.
struct CudaPlan {
  const CudaTarget* target;
  std::vector<std::vector<TileTime>> tiles;  // of each layer, those that it can have
  std::vector<int32_t> tile_panels;          // of each layer, the one that it gets
  std::string source;
  int64_t kernels = 0;

  std::string file() const { return cuda::CodeFileName(target->name); }
};

// Tiles for so many rows, > 16: the quickest by the timer or, without one, by the cost model; of
// equals the one of most panels. Layers that share kernels get the same, because the library takes
// the widest tile that it finds code for: the quickest for all of them. Layers that are alike are
// timed once.
CudaPlan PlanCudaCode(std::span<const CudaLayer> layers, const CudaTarget& target, int64_t rows,
                      const TileTimer& timer = {});

// Kernels for every tile that a layer can have: what a timer runs.
std::string SourceOfAllTiles(std::span<const CudaLayer> layers, const CudaTarget& target);

}  // namespace sparsefuse

#endif  // SPARSEFUSE_PASSES_CUDA_CODE_H_

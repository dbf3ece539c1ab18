#include "passes/cuda/cost.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace sparsefuse {
namespace {

constexpr double kCallMicroseconds = 5;

// What a kernel's tile is and how fast: rows of X; µs that do not depend on the inputs; share of
// the card's int8 rate, or, where gathering is the limit, the rate of a multiprocessor itself.
struct TileCost {
  int64_t rows;
  double fixed;
  double share;
  double gather_tops;  // 0: `share` counts
};

TileCost CostOf(const CudaTarget& target, int32_t panels, bool many_scales) {
  // One panel gathers, whatever the card: 1.13 TOPS measured; with several rows of scales assumed.
  if (panels == 1) return many_scales ? TileCost{128, 0, 0, 0.9} : TileCost{256, 0, 0, 1.13};
  if (target.wgmma) {  // measured
    if (many_scales) return {128, 8, 0.35, 0};
    return panels == 4 ? TileCost{256, 13.8, 0.75, 0} : TileCost{256, 9.3, 0.51, 0};
  }
  if (many_scales) return {128, 8, 0.4, 0};  // assumed
  return panels == 4 ? TileCost{256, 13.8, 0.6, 0} : TileCost{256, 9.3, 0.5, 0};
}

// A tile of one panel gathers, so it is for layers that have no other.
bool HasTile(const CudaLayer& layer, int32_t panels) {
  if (panels > layer.shared_panels) return false;
  if (panels == 2 && layer.shape.scale_groups > 0) return false;
  return panels > 1 || layer.shared_panels == 1;
}

}  // namespace

std::span<const CudaTarget> CudaTargets() {
  static constexpr CudaTarget kTargets[] = {
      {"sm_80", "A100 80 GB", 108, 1810, 624, false, cuda::Room::kLarge},
      {"sm_86", "A10", 72, 530, 250, false, cuda::Room::kSmall},
      {"sm_89", "L4", 58, 265, 242, false, cuda::Room::kSmall},
      {"sm_90a", "H200", 132, 4270, 1979, true, cuda::Room::kLarge},
  };
  return kTargets;
}

double PredictFewRows(const CudaLayer& layer, const CudaTarget& target) {
  const double share = layer.shape.encoding == Encoding::kInt8   ? 0.96
                       : layer.shape.encoding == Encoding::kInt4 ? 0.78
                                                                 : 0.92;
  // That skipping streams as well as reading all was not measured.
  const double read = cuda::SkipsZeros(layer.shape, 1) ? 1 - layer.shape.zero_inputs : 1;
  return kCallMicroseconds +
         read * static_cast<double>(layer.bytes()) / (target.gigabytes * share * 1e3);
}

double PredictManyRows(const CudaLayer& layer, const CudaTarget& target, int64_t rows,
                       int32_t panels) {
  if (!HasTile(layer, panels)) return std::numeric_limits<double>::infinity();
  const TileCost cost = CostOf(target, panels, layer.shape.scale_groups > 0);
  const int64_t tiles =
      (layer.shape.panels() + panels - 1) / panels * ((rows + cost.rows - 1) / cost.rows);
  const double waves =
      std::ceil(static_cast<double>(tiles) / static_cast<double>(target.multiprocessors));
  const double groups =
      static_cast<double>(layer.groups) / static_cast<double>(layer.shape.panels());
  const double operations =
      groups * 2.0 * static_cast<double>(panels * kGroupWeights * cost.rows) * 1e-6;  // millions
  const double tops = cost.gather_tops > 0
                          ? cost.gather_tops
                          : target.tops / static_cast<double>(target.multiprocessors) * cost.share;
  return kCallMicroseconds + waves * (cost.fixed + operations / tops);
}

std::vector<int32_t> TilesOf(const CudaLayer& layer) {
  std::vector<int32_t> tiles;
  for (const int32_t panels : {4, 2, 1}) {
    if (HasTile(layer, panels)) tiles.push_back(panels);
  }
  SF_CHECK(!tiles.empty());
  return tiles;
}

int32_t ChooseTile(const CudaLayer& layer, const CudaTarget& target, int64_t rows) {
  const std::vector<int32_t> tiles = TilesOf(layer);
  return *std::min_element(tiles.begin(), tiles.end(), [&](int32_t a, int32_t b) {
    return PredictManyRows(layer, target, rows, a) < PredictManyRows(layer, target, rows, b);
  });
}

cuda::Step ManyRowsStep(const CudaTarget& target, int32_t panels) {
  return target.wgmma && panels > 1 ? cuda::Step::kPrefillSm90 : cuda::Step::kPrefill;
}

}  // namespace sparsefuse

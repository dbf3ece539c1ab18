#include "tests/cuda/patterns.h"

#include <algorithm>
#include <random>
#include <utility>

namespace sparsefuse::test {
namespace {

// Zeros in squares: of `side` outputs × 64 inputs, each kept with the probability `density`.
void KeepRuns(LinearLayer& layer, int64_t side, double density, uint32_t seed) {
  std::mt19937 random(seed);
  std::bernoulli_distribution keep(density);
  std::vector<std::vector<int64_t>> kept;
  for (int64_t panel = 0; panel < layer.shape.panels(); ++panel) {
    if (panel * kPanelOutputs % side != 0) {
      kept.push_back(kept.back());
      continue;
    }
    kept.emplace_back();
    for (int64_t group = 0; group < GroupsPerPanel(layer.shape.inputs); ++group) {
      if (!keep(random)) continue;
      for (int64_t q = group * 16; q < std::min(group * 16 + 16, QuadCount(layer.shape.inputs));
           ++q) {
        kept.back().push_back(q);
      }
    }
  }
  SetQuads(layer, kept);
  layer.Pack();
  layer.scale_code.resize(static_cast<size_t>(layer.shape.panels() * kPanelOutputs), 200);
}

}  // namespace

LinearLayer MakeLayer(Encoding encoding, Pattern pattern, int64_t inputs, int64_t outputs,
                      double density, uint32_t seed, bool smooth) {
  const bool sparse = pattern != Pattern::kDense;
  LinearLayer layer({inputs, outputs, 0, encoding, sparse}, seed, smooth, density);
  const int64_t side = pattern == Pattern::kRuns32 ? 32 : pattern == Pattern::kRuns64 ? 64 : 128;
  if (sparse && pattern != Pattern::kQuads) KeepRuns(layer, side, density, seed);
  return layer;
}

std::vector<LinearLayer> CompiledLayers() {
  std::vector<LinearLayer> layers;
  for (const Encoding encoding : kEncodings) {
    for (const Pattern pattern : kPatterns) {
      layers.push_back(MakeLayer(encoding, pattern, 1000, 300, 0.5, 7));
    }
    layers.emplace_back(LinearShape{1000, 300, 4, encoding, false}, 8);
  }
  return layers;
}

}  // namespace sparsefuse::test

// Scales of a weight: one 8-bit code a cell, scale = base·2^(code/16).
//
// A cell is one output times `width` neighbouring inputs. All cells of a tensor with the same code
// form a fusion cluster. A cell's code is the one whose scale has the smallest weighted error of
// rounding; clusters are then merged, cheapest neighbours first, down to a number that may remain.
// A cell costs one byte however many clusters there are (docs/formats.md), so merging saves bytes
// only once the file is compressed; `width` is what holds scales below 0.3 % of the weights.

#ifndef SPARSEFUSE_PASSES_QUANTIZE_CLUSTERS_H_
#define SPARSEFUSE_PASSES_QUANTIZE_CLUSTERS_H_

#include <cstdint>
#include <span>
#include <vector>

#include "passes/quantize/rounding.h"

namespace sparsefuse {

// W as [N, K], one row an output.
struct WeightRowsView {
  std::span<const float> rows;
  int64_t inputs = 0, outputs = 0;  // K, N

  std::span<const float> Row(int64_t n) const {
    return rows.subspan(static_cast<size_t>(n * inputs), static_cast<size_t>(inputs));
  }
};

struct CellScales {
  int64_t width = 0;          // inputs of a cell; the last of a row may have fewer
  int64_t cells_per_row = 0;  // ⌈K/width⌉
  float base = 0;
  std::vector<uint8_t> codes;  // [N, cells_per_row]

  float Scale(int64_t output, int64_t input) const;
  int64_t ClusterCount() const;
};

// Σ h[k]·(w[k] − ŵ[k])² of a cell rounded with this scale, both readings of nested codes by their
// shares. importance: h ≥ 0 of the cell's inputs, or empty for ones.
double CellError(std::span<const float> cell, std::span<const float> importance, float scale,
                 const RoundingRule& rule);

// The scales described above. importance: [K], the mean squares of the inputs, or empty for ones.
// At most `max_clusters` ≥ 1 clusters remain, more where cells are too different to share a code
// (their scales more than a factor 3 apart). Does not depend on `threads`.
CellScales SearchScales(const WeightRowsView& weight, int64_t width,
                        std::span<const float> importance, const RoundingRule& rule,
                        int64_t max_clusters, int threads);

// Largest magnitude over the encoding's largest reading, codes rounded up: nothing clips.
CellScales AbsmaxScales(const WeightRowsView& weight, int64_t width, Encoding encoding);

// What merging does, free of weights. errors[c][k]: error of the c-th cell with code k, infinity
// where that is out of the question; a cell has at least one finite. Returns a code for each cell:
// each the best one of those that are left.
std::vector<int> MergeClusters(const std::vector<std::vector<double>>& errors,
                               int64_t max_clusters);

}  // namespace sparsefuse

#endif  // SPARSEFUSE_PASSES_QUANTIZE_CLUSTERS_H_

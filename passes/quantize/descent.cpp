#include "passes/quantize/descent.h"

#include "onnx_io/error.h"
#include "passes/framework/parallel.h"
#include "passes/quantize/feedback.h"

namespace sparsefuse {
namespace {

using Eigen::Index;
using Eigen::MatrixXd;
using Eigen::VectorXd;

constexpr int kSweeps = 20;  // at most

// What one reading of the codes misses, and half the gradient of its error.
struct Miss {
  Miss(std::span<const float> row, std::span<const double> values, const MatrixXd& h)
      : slope(static_cast<Index>(row.size())) {
    for (size_t k = 0; k < row.size(); ++k) slope(static_cast<Index>(k)) = row[k] - values[k];
    slope = h * slope;
  }

  // Of the error when input k's reading falls by `change`.
  double Gain(const MatrixXd& h, Index k, double change) const {
    return change * (2 * slope(k) + change * h(k, k));
  }

  VectorXd slope;
};

}  // namespace

void DescendRow(const RoundingRule& rule, std::span<const float> row,
                std::span<const double> scales, const MatrixXd& h, const std::vector<bool>& fixed,
                std::span<int8_t> codes) {
  SF_CHECK(!rule.IsBounded());
  const bool nested = IsNested(rule.encoding);
  const double share8 = nested ? rule.share8 : 1;
  const auto full = [&](size_t k) { return scales[k] * DecodeWeight(rule.encoding, codes[k]); };
  const auto high = [&](size_t k) { return scales[k] * DecodeHigh(rule.encoding, codes[k]); };
  std::vector<double> values(row.size());
  for (size_t k = 0; k < row.size(); ++k) values[k] = full(k);
  Miss miss8(row, values, h), miss4 = miss8;
  if (nested) {
    for (size_t k = 0; k < row.size(); ++k) values[k] = high(k);
    miss4 = Miss(row, values, h);
  }
  for (int sweep = 0; sweep < kSweeps; ++sweep) {
    bool moved = false;
    for (size_t i = 0; i < row.size(); ++i) {
      if (!fixed.empty() && fixed[i]) continue;
      const auto k = static_cast<Index>(i);
      // The best values while all others stay.
      const double best8 = (full(i) + miss8.slope(k) / h(k, k)) / scales[i];
      const double best4 = nested ? (high(i) + miss4.slope(k) / h(k, k)) / scales[i] : 0;
      const int8_t code =
          nested ? RoundNested(rule, best8, best4, 128) : RoundPlain(rule, best8, 128);
      if (code == codes[i]) continue;
      const double change8 = full(i) - scales[i] * DecodeWeight(rule.encoding, code);
      const double change4 = nested ? high(i) - scales[i] * DecodeHigh(rule.encoding, code) : 0;
      const double gain =
          share8 * miss8.Gain(h, k, change8) + (1 - share8) * miss4.Gain(h, k, change4);
      if (!(gain < 0)) continue;
      codes[i] = code;
      miss8.slope += change8 * h.col(k);
      if (nested) miss4.slope += change4 * h.col(k);
      moved = true;
    }
    if (!moved) return;
  }
}

void DescendWeights(const WeightRowsView& weight, const CellScales& scales,
                    const RoundingRule& rule, const MatrixXd& h, int threads,
                    std::span<int8_t> codes) {
  const std::vector<bool> zero = ZeroBlocks(weight.rows, weight.inputs, weight.outputs);
  const int64_t quads = (weight.inputs + 3) / 4;
  ForEachIndex(threads, static_cast<size_t>(weight.outputs), [&](size_t output) {
    const auto n = static_cast<int64_t>(output);
    std::vector<double> own(static_cast<size_t>(weight.inputs));
    std::vector<bool> fixed(own.size());
    for (int64_t k = 0; k < weight.inputs; ++k) {
      own[static_cast<size_t>(k)] = scales.Scale(n, k);
      fixed[static_cast<size_t>(k)] =
          zero[static_cast<size_t>(n / kPanelOutputs * quads + k / 4)] ||
          own[static_cast<size_t>(k)] == 0;
    }
    DescendRow(rule, weight.Row(n), own, h, fixed, codes.subspan(output * own.size(), own.size()));
  });
}

}  // namespace sparsefuse

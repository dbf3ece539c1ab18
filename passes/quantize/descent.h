// Codes that are moved one at a time, each to its best place while all others stay, until none
// gains: coordinate descent on the error of a layer's output (the objective of AdaRound, Nagel et
// al. 2020, with any code in reach, as in QuantEase, Behdin et al. 2023).

#ifndef SPARSEFUSE_PASSES_QUANTIZE_DESCENT_H_
#define SPARSEFUSE_PASSES_QUANTIZE_DESCENT_H_

#include <Eigen/Core>
#include <cstdint>
#include <span>
#include <vector>

#include "passes/quantize/clusters.h"
#include "passes/quantize/rounding.h"

namespace sparsefuse {

// One output: row w [K], the scale of each input's codes [K], codes [K]. Falls with every move:
//
//   λ·(w − ŵ)ᵀH(w − ŵ) + (1 − λ)·(w − ŵ₄)ᵀH(w − ŵ₄),   λ = 1 but for nested codes
//
// h [K, K], positive diagonal. `fixed`: inputs whose codes stay; empty: none. Not for a pair bound,
// under which codes do not move alone.
void DescendRow(const RoundingRule& rule, std::span<const float> row,
                std::span<const double> scales, const Eigen::MatrixXd& h,
                const std::vector<bool>& fixed, std::span<int8_t> codes);

// All outputs; blocks of 4 inputs × 32 outputs that are zero in the weight stay zero.
void DescendWeights(const WeightRowsView& weight, const CellScales& scales,
                    const RoundingRule& rule, const Eigen::MatrixXd& h, int threads,
                    std::span<int8_t> codes);

}  // namespace sparsefuse

#endif  // SPARSEFUSE_PASSES_QUANTIZE_DESCENT_H_

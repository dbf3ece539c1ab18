// Weights to codes with fixed scales, each rounding error fed forward to the inputs that are still
// to come (GPTQ, Frantar et al. 2022; reference §9.4):
//
//   (H + λI)⁻¹ = UᵀU,  U upper triangular
//   for k = 0 … K−1:  q = round(w[k]);  w[k+1:] −= U[k, k+1:]ᵀ·(w[k] − q)/U[k,k]
//
// outputs side by side, inputs in their order, in panels of 128. Nested codes have two readings
// that cannot both follow one number: each keeps a copy of the weights with feedback of its own,
// and every code is chosen for both (rounding.h).
//
// A block of 4 inputs × 32 outputs that is all zero stays zero (what it misses is fed forward), so
// that zero blocks found in a model survive.

#ifndef SPARSEFUSE_PASSES_QUANTIZE_FEEDBACK_H_
#define SPARSEFUSE_PASSES_QUANTIZE_FEEDBACK_H_

#include <Eigen/Core>
#include <cstdint>
#include <span>
#include <vector>

#include "passes/quantize/clusters.h"
#include "passes/statistics/dense.h"

namespace sparsefuse {

// U of H, [K, K].
Eigen::MatrixXd FeedbackFactor(const DampedCholesky& h);

// Codes [N, K]. `factor`: U; null: no feedback, every weight to its nearest code. Under a pair
// bound the excess of a pair is taken equally from both, as far as the first can foresee the
// second. The result does not depend on `threads`.
std::vector<int8_t> RoundWeights(const WeightRowsView& weight, const CellScales& scales,
                                 const RoundingRule& rule, const Eigen::MatrixXd* factor,
                                 int threads);

enum class Reading { kFull, kHigh };  // kHigh: the 4-bit reading of nested codes

// What codes stand for, [N, K].
std::vector<float> Decode(std::span<const int8_t> codes, const CellScales& scales, int64_t inputs,
                          Encoding encoding, Reading reading = Reading::kFull);

// Σ over outputs of (w − ŵ)ᵀ·H·(w − ŵ); h empty: of (w − ŵ)². `other` empty: of w itself.
double BlockError(const WeightRowsView& weight, std::span<const float> other,
                  const Eigen::MatrixXd& h, int threads);

// Share of the blocks of 4 inputs × 32 outputs that are all zero.
template <typename T>
double ZeroBlockShare(std::span<const T> rows, int64_t inputs, int64_t outputs);

// Which blocks are all zero: [panel · ⌈K/4⌉ + quad].
template <typename T>
std::vector<bool> ZeroBlocks(std::span<const T> rows, int64_t inputs, int64_t outputs);

}  // namespace sparsefuse

#endif  // SPARSEFUSE_PASSES_QUANTIZE_FEEDBACK_H_

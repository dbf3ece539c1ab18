// int8 codes and scale codes for the weight of a linear layer.

#ifndef SPARSEFUSE_PASSES_QUANTIZE_LINEAR_WEIGHTS_H_
#define SPARSEFUSE_PASSES_QUANTIZE_LINEAR_WEIGHTS_H_

#include <cstdint>
#include <span>
#include <vector>

#include "passes/lower/linear.h"
#include "passes/quantize/rounding.h"

namespace sparsefuse {

// rows: W as [N, K], one row an output. importance: K weights h[k] ≥ 0 of the squared error (the
// mean square of input k), or empty for all ones. Each row's scale is the one of a grid of step
// 2^(1/16) around max|w|/127 with the smallest Σ h[k]·(w[k] − scale·code[k])². The result does not
// depend on `threads`.
QuantizedWeight QuantizeLinearWeight(std::span<const float> rows, int64_t inputs, int64_t outputs,
                                     std::span<const float> importance, PairBound bound,
                                     int threads);

// One row with a fixed scale > 0: codes[k] = clamp(round_half_even(row[k]/scale), −127, 127), then
// the pair bound, taking the excess equally from both. Returns Σ h[k]·(row[k] − scale·codes[k])².
double QuantizeRow(std::span<const float> row, std::span<const float> importance, float scale,
                   PairBound bound, std::span<int8_t> codes) noexcept;

// √(Σ(w − ŵ)² / Σw²), 0 for a weight of zeros.
double RelativeError(std::span<const float> rows, const QuantizedWeight& weight);

}  // namespace sparsefuse

#endif  // SPARSEFUSE_PASSES_QUANTIZE_LINEAR_WEIGHTS_H_

// int8 codes and scale codes for the weight of a linear layer.

#ifndef SPARSEFUSE_PASSES_QUANTIZE_LINEAR_WEIGHTS_H_
#define SPARSEFUSE_PASSES_QUANTIZE_LINEAR_WEIGHTS_H_

#include <cstdint>
#include <span>
#include <vector>

#include "passes/lower/linear.h"

namespace sparsefuse {

// Whether the codes must be exact under `vpmaddubsw`, which adds two products of an unsigned and a
// signed byte in 16 bits: then codes 2j and 2j+1 of a row with the same sign have |a| + |b| ≤ 128,
// since 255·128 < 2¹⁵. ONNX Runtime uses that instruction on CPUs without VNNI.
enum class PairBound { kNone, kAvx2 };

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

// What the mean output loses: Σ_k mean[k]·(W[n,k] − scale[n]·code[n,k]) for every n. Adding it to
// the bias makes the mean output right again (Nagel et al. 2019, bias correction).
std::vector<float> BiasCorrection(std::span<const float> rows, const QuantizedWeight& weight,
                                  std::span<const float> mean_input);

// √(Σ(w − ŵ)² / Σw²), 0 for a weight of zeros.
double RelativeError(std::span<const float> rows, const QuantizedWeight& weight);

}  // namespace sparsefuse

#endif  // SPARSEFUSE_PASSES_QUANTIZE_LINEAR_WEIGHTS_H_

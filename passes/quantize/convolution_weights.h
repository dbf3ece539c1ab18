// int8 codes for the filters of convolutions: one scale an output channel.

#ifndef SPARSEFUSE_PASSES_QUANTIZE_CONVOLUTION_WEIGHTS_H_
#define SPARSEFUSE_PASSES_QUANTIZE_CONVOLUTION_WEIGHTS_H_

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "passes/quantize/linear_weights.h"
#include "passes/quantize/packed_filters.h"

namespace sparsefuse {

// w[m,k] ≈ scales[m]·codes[m,k]
struct QuantizedFilters {
  std::vector<int8_t> codes;            // [M, K], −127…127
  std::vector<float> scales;            // [M], > 0
  double relative_error = 0;            // √(Σ(w − ŵ)² / Σw²)
  std::optional<PackedFilters> packed;  // where the codes are made of 4 bits each
};

// The scale with the smallest Σ(w[k] − scale·code[k])² of a grid between max|w|/190 (clipping) and
// max|w|/64 (where the pair bound cannot bind); 1 for a row of zeros. `scratch`: K codes.
float BestRowScale(std::span<const float> row, PairBound bound, std::span<int8_t> scratch) noexcept;

// rows: [M, K] in the order in which the products are added (see ToReductionOrder). The result does
// not depend on `threads`.
QuantizedFilters QuantizeFilters(std::span<const float> rows, int64_t filters, PairBound bound,
                                 int threads);

// [M, C, S] → [M, S, C]: ONNX stores a filter with its channels first, ONNX Runtime's int8 kernels
// add its products with the channels innermost, so pairs are neighbours in that order.
template <typename T>
std::vector<T> ToReductionOrder(std::span<const T> filters, int64_t count, int64_t channels);
// [M, S, C] → [M, C, S]
template <typename T>
std::vector<T> ToStorageOrder(std::span<const T> filters, int64_t count, int64_t channels);

// bias[m] / (input_scale·scales[m]) rounded to int32. Where that leaves less than a factor of two
// of headroom in the accumulator (|code| > 2³⁰), scales[m] grows until it fits and the row of codes
// is rounded again from rows; `bias` may be empty (zeros). Packed filters cannot be rounded again:
// see HasRoomForBias.
std::vector<int32_t> QuantizeBias(std::span<const float> bias, float input_scale,
                                  std::span<const float> rows, PairBound bound,
                                  QuantizedFilters& filters);

// Whether no scale has to grow for this bias.
bool HasRoomForBias(std::span<const float> bias, float input_scale,
                    std::span<const float> scales) noexcept;

// Sums of more products than this could overflow the int32 accumulator: K·255·127 < 2³⁰.
inline constexpr int64_t kMaxReduction = 32768;

}  // namespace sparsefuse

#endif  // SPARSEFUSE_PASSES_QUANTIZE_CONVOLUTION_WEIGHTS_H_

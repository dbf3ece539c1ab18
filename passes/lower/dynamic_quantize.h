// The run-time part of a linear layer with quantised weights, in standard operators: rows quantised
// as they come, exact integer products.

#ifndef SPARSEFUSE_PASSES_LOWER_DYNAMIC_QUANTIZE_H_
#define SPARSEFUSE_PASSES_LOWER_DYNAMIC_QUANTIZE_H_

#include "passes/lower/builder.h"

namespace sparsefuse {

// x = scaled·scale, row by row. A row of zeros or denormals has the smallest scale; a row with NaN
// or Inf has scale NaN.
struct ScaledRows {
  Value* scaled;  // float [..., K], |scaled| ≤ 127
  Value* scale;   // float [..., 1]
};
ScaledRows ScaleRows(Builder& b, Value* x);

// clamp(round_half_even(scaled), −127, 127) + 128 as uint8.
Value* RowCodes(Builder& b, Value* scaled);

// Σ_k (codes − 128)·weight as float: codes [..., M, K], weight int8 [..., K, N].
Value* IntegerProduct(Builder& b, Value* codes, Value* weight);

}  // namespace sparsefuse

#endif  // SPARSEFUSE_PASSES_LOWER_DYNAMIC_QUANTIZE_H_

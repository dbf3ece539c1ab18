// The function that makes int8 filters of packed 4-bit ones, in standard operators. What it reads
// is constant, so ONNX Runtime runs it once, at load.
//
//   UnpackFilters4(packed u8 [M·B, 16], multipliers u8 [M·B, 1], dims i64 [r]) → codes i8 [dims]
//
// Row m·B + b holds weights 32b … 32b + 31 of filter m: number i of them in the low half of byte i,
// number i + 16 in the high half, each + 8. The filter's last block is filled up with zeros.
// dims[0] is M. code = multiplier · (nibble − 8).

#ifndef SPARSEFUSE_PASSES_LOWER_UNPACK_FILTERS_H_
#define SPARSEFUSE_PASSES_LOWER_UNPACK_FILTERS_H_

#include <cstdint>
#include <span>
#include <string_view>

#include "passes/lower/builder.h"

namespace sparsefuse {

inline constexpr std::string_view kUnpackFilters = "UnpackFilters4";

// nibbles: [M, K], −8…7; multipliers: [M, ⌈K/32⌉]; M = dims[0], K the product of the others.
// Returns the codes. Adds the function to the builder's model where it is missing.
Value* UnpackedFilters(Builder& builder, Model& model, std::span<const int8_t> nibbles,
                       std::span<const uint8_t> multipliers, const Dims& dims);

}  // namespace sparsefuse

#endif  // SPARSEFUSE_PASSES_LOWER_UNPACK_FILTERS_H_

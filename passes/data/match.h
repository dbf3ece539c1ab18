// Whether an array can feed a graph input, and how its first axis is to be read.

#ifndef SPARSEFUSE_PASSES_DATA_MATCH_H_
#define SPARSEFUSE_PASSES_DATA_MATCH_H_

#include <cstdint>
#include <span>
#include <string>

#include "onnx_io/model.h"

namespace sparsefuse {

enum class ArrayForm {
  kRows,   // [samples, rest…]: samples are stacked along the input's own first axis
  kWhole,  // [samples, every axis of the input…]
};

// UserErrors as Dataset::Load, without file and array.
ArrayForm MatchArray(const Value& input, DType dtype, std::span<const int64_t> dims);
// For one whole input, without a sample axis.
void MatchWhole(const Value& input, DType dtype, std::span<const int64_t> dims);

// The number that the input's first axis is fixed to; 0 if it takes any, has none or has no shape.
int64_t FixedFirstAxis(const Value& input);

// "float [batch,3,224,224]"; axes of which nothing is known print as "?", an unknown rank as "[…]".
std::string Describe(const ValueType& type);

}  // namespace sparsefuse

#endif  // SPARSEFUSE_PASSES_DATA_MATCH_H_

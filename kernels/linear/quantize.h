// Activations to int8, one scale a row. The portable form: reference kernel, simulation, oracle of
// the vector forms.

#ifndef SPARSEFUSE_KERNELS_LINEAR_QUANTIZE_H_
#define SPARSEFUSE_KERNELS_LINEAR_QUANTIZE_H_

#include <cstdint>
#include <span>

namespace sparsefuse {

// codes[k] = clamp(round_half_even(x[k]·smooth[k]/s), −127, 127), s as in linear.h, returned.
// smooth: as many values as x, or empty for ones. With a NaN or Inf in x·smooth, s is NaN and the
// codes are 0. Assumes the default rounding mode.
float QuantizeRow(std::span<const float> x, std::span<const float> smooth,
                  std::span<int8_t> codes) noexcept;

}  // namespace sparsefuse

#endif  // SPARSEFUSE_KERNELS_LINEAR_QUANTIZE_H_

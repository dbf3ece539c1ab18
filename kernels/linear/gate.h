// FuseGate: whether a row of activations can do with the 4-bit reading of nested weights. It can
// when the estimate of what that costs, r̂ ≈ ‖(W₈ − W₄)·x‖, is below a threshold:
//   r̂ = a·‖x‖ + b         without a sketch
//   r̂ = a·‖S·x‖ + b       with a sketch S of `rows` rows
// gate = [a, b, τ, rows, S row-major]; x = X ⊙ smooth. A row with NaN or Inf is never easy.
//
// Compiled once for the baseline, in one order of summation, so that every kernel on every CPU
// decides alike, row by row.

#ifndef SPARSEFUSE_KERNELS_LINEAR_GATE_H_
#define SPARSEFUSE_KERNELS_LINEAR_GATE_H_

#include <cstdint>

namespace sparsefuse {

inline constexpr int64_t kGateHeader = 4;
inline constexpr int64_t kMaxSketchRows = 1024;

// x: [K], float or float16; smooth: [K] or null for ones.
bool IsEasyRow(const float* gate, const void* x, bool half, const float* smooth,
               int64_t inputs) noexcept;

}  // namespace sparsefuse

#endif  // SPARSEFUSE_KERNELS_LINEAR_GATE_H_

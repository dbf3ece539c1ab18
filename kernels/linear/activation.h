// What may follow a linear layer inside its operator:
//   Relu      max(v, 0)
//   Gelu      v·Φ(v) = v·(1 + erf(v/√2))/2
//   GeluTanh  v·(1 + tanh(√(2/π)·(v + 0.044715·v³)))/2
//   Silu      v·σ(v) = v/(1 + exp(−v))
// NaN gives NaN. Vector kernels approximate: |activation − exact| ≤ kActivationError·|v|.

#ifndef SPARSEFUSE_KERNELS_LINEAR_ACTIVATION_H_
#define SPARSEFUSE_KERNELS_LINEAR_ACTIVATION_H_

#include <cstdint>

namespace sparsefuse {

enum class Activation : uint8_t { kNone, kRelu, kGelu, kGeluTanh, kSilu };
inline constexpr Activation kActivations[] = {Activation::kNone, Activation::kRelu,
                                              Activation::kGelu, Activation::kGeluTanh,
                                              Activation::kSilu};

inline constexpr double kActivationError = 4 * 0x1p-24;

// "", "Relu", "Gelu", "GeluTanh", "Silu": what is appended to an operator's name.
const char* ActivationName(Activation activation) noexcept;

// Correctly rounded but for double precision's error.
float Activate(Activation activation, float v) noexcept;

}  // namespace sparsefuse

#endif  // SPARSEFUSE_KERNELS_LINEAR_ACTIVATION_H_

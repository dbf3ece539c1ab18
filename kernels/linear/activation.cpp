#include "kernels/linear/activation.h"

#include <cmath>

namespace sparsefuse {

const char* ActivationName(Activation activation) noexcept {
  switch (activation) {
    case Activation::kRelu:
      return "Relu";
    case Activation::kGelu:
      return "Gelu";
    case Activation::kGeluTanh:
      return "GeluTanh";
    case Activation::kSilu:
      return "Silu";
    case Activation::kNone:
      break;
  }
  return "";
}

float Activate(Activation activation, float v) noexcept {
  const double x = v;
  switch (activation) {
    case Activation::kRelu:
      return v < 0 ? 0.0f : v;
    case Activation::kGelu:
      return static_cast<float>(x * std::erfc(-x * 0.70710678118654752) / 2);
    case Activation::kGeluTanh:
      return static_cast<float>(
          x / (1 + std::exp(-2 * 0.79788456080286536 * (x + 0.044715 * x * x * x))));
    case Activation::kSilu:
      return static_cast<float>(x / (1 + std::exp(-x)));
    case Activation::kNone:
      break;
  }
  return v;
}

}  // namespace sparsefuse

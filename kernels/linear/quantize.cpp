#include "kernels/linear/quantize.h"

#include <algorithm>
#include <cassert>
#include <cmath>

namespace sparsefuse {

float QuantizeRow(std::span<const float> x, std::span<const float> smooth,
                  std::span<int8_t> codes) noexcept {
  assert(codes.size() == x.size() && (smooth.empty() || smooth.size() == x.size()));
  const auto value = [&](size_t k) { return smooth.empty() ? x[k] : x[k] * smooth[k]; };
  float largest = 0, poison = 0;  // poison: 0, or NaN after any NaN or Inf
  for (size_t k = 0; k < x.size(); ++k) {
    largest = std::max(largest, std::fabs(value(k)));
    poison += 0.0f * value(k);
  }
  const float scale = std::max(largest / 127.0f, 0x1p-126f) + poison;
  if (std::isnan(scale)) {
    std::fill(codes.begin(), codes.end(), int8_t{0});
    return scale;
  }
  for (size_t k = 0; k < x.size(); ++k) {
    const float rounded = std::nearbyint(std::clamp(value(k) / scale, -127.0f, 127.0f));
    codes[k] = static_cast<int8_t>(rounded);
  }
  return scale;
}

}  // namespace sparsefuse

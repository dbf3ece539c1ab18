#include "kernels/linear/gate.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "kernels/base/float16.h"

namespace sparsefuse {
namespace {

constexpr int64_t kLanes = 8;    // partial sums: the order of summation is part of the result
constexpr int64_t kPart = 1024;  // inputs that are converted at a time

using Lanes = std::array<float, kLanes>;

// sums[l] += Σ a[i]·b[i] over i ≡ l (mod kLanes). count: a multiple of kLanes.
void AddProducts(const float* a, const float* b, int64_t count, Lanes& sums) noexcept {
  for (int64_t i = 0; i < count; i += kLanes) {
    for (int64_t l = 0; l < kLanes; ++l) {
      sums[static_cast<size_t>(l)] += a[i + l] * b[i + l];
    }
  }
}

float Total(const Lanes& sums) noexcept {
  float total = 0;
  for (float s : sums) total += s;
  return total;
}

}  // namespace

bool IsEasyRow(const float* gate, const void* x, bool half, const float* smooth,
               int64_t inputs) noexcept {
  const auto sketch_rows = static_cast<int64_t>(gate[3]);
  const float* sketch = gate + kGateHeader;
  std::array<Lanes, kMaxSketchRows> sums;
  std::fill_n(sums.begin(), std::max<int64_t>(sketch_rows, 1), Lanes{});
  alignas(64) std::array<float, kPart> part, row;
  for (int64_t k = 0; k < inputs; k += kPart) {
    const int64_t count = std::min(kPart, inputs - k);
    const int64_t padded = (count + kLanes - 1) / kLanes * kLanes;
    part.fill(0);
    for (int64_t i = 0; i < count; ++i) {
      const float value = half ? Float16ToFloat(static_cast<const uint16_t*>(x)[k + i])
                               : static_cast<const float*>(x)[k + i];
      part[static_cast<size_t>(i)] = smooth ? value * smooth[k + i] : value;
    }
    if (sketch_rows == 0) AddProducts(part.data(), part.data(), padded, sums[0]);
    for (int64_t r = 0; r < sketch_rows; ++r) {
      const float* weights = sketch + r * inputs + k;
      if (padded != count) {  // never read beyond the sketch
        row.fill(0);
        std::copy_n(weights, count, row.begin());
        weights = row.data();
      }
      AddProducts(part.data(), weights, padded, sums[static_cast<size_t>(r)]);
    }
  }
  float square = sketch_rows == 0 ? Total(sums[0]) : 0;
  for (int64_t r = 0; r < sketch_rows; ++r) {
    const float value = Total(sums[static_cast<size_t>(r)]);
    square += value * value;
  }
  // Inf would not be caught by the comparison when a < 0.
  return std::isfinite(square) && gate[0] * std::sqrt(square) + gate[1] < gate[2];
}

}  // namespace sparsefuse

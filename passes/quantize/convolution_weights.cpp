#include "passes/quantize/convolution_weights.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "passes/framework/parallel.h"

namespace sparsefuse {
namespace {

// Numbers of steps that max|w| is divided into: above 127 the largest weights are clipped, below it
// the pair bound has room.
constexpr int kFewestSteps = 64;
constexpr int kMostSteps = 190;

constexpr double kLargestBias = 1 << 30;

// [M, A, B] → [M, B, A]
template <typename T>
std::vector<T> SwapInner(std::span<const T> values, int64_t m, int64_t a, int64_t b) {
  std::vector<T> swapped(values.size());
  for (int64_t i = 0; i < m; ++i) {
    for (int64_t j = 0; j < a; ++j) {
      for (int64_t k = 0; k < b; ++k) {
        swapped[static_cast<size_t>((i * b + k) * a + j)] =
            values[static_cast<size_t>((i * a + j) * b + k)];
      }
    }
  }
  return swapped;
}

// With which the bias fits.
double SmallestScale(float bias, float input_scale) {
  return std::fabs(bias) / (kLargestBias * input_scale);
}

int64_t Inner(size_t size, int64_t count, int64_t channels) {
  return count * channels == 0 ? 0 : static_cast<int64_t>(size) / (count * channels);
}

}  // namespace

float BestRowScale(std::span<const float> row, PairBound bound,
                   std::span<int8_t> scratch) noexcept {
  float largest = 0;
  for (float w : row) largest = std::max(largest, std::fabs(w));
  // Below the normal range scales lose their precision; such weights are zeros to any model.
  if (!(largest / kMostSteps >= std::numeric_limits<float>::min())) return 1;
  float best = largest / 127;
  double least = QuantizeRow(row, {}, best, bound, scratch);
  for (int steps = kMostSteps; steps >= kFewestSteps; --steps) {
    const float scale = largest / static_cast<float>(steps);
    const double error = QuantizeRow(row, {}, scale, bound, scratch);
    if (error < least) {
      least = error;
      best = scale;
    }
  }
  return best;
}

QuantizedFilters QuantizeFilters(std::span<const float> rows, int64_t filters, PairBound bound,
                                 int threads) {
  QuantizedFilters result;
  result.codes.resize(rows.size());
  result.scales.resize(static_cast<size_t>(filters));
  std::vector<double> errors(static_cast<size_t>(filters));
  const size_t length = filters ? rows.size() / static_cast<size_t>(filters) : 0;
  ForEachIndex(threads, static_cast<size_t>(filters), [&](size_t m) {
    const std::span<const float> row = rows.subspan(m * length, length);
    const std::span<int8_t> codes = std::span(result.codes).subspan(m * length, length);
    result.scales[m] = BestRowScale(row, bound, codes);
    errors[m] = QuantizeRow(row, {}, result.scales[m], bound, codes);
  });
  double error = 0, energy = 0;
  for (double e : errors) error += e;
  for (float w : rows) energy += static_cast<double>(w) * w;
  result.relative_error = energy > 0 ? std::sqrt(error / energy) : 0;
  return result;
}

template <typename T>
std::vector<T> ToReductionOrder(std::span<const T> filters, int64_t count, int64_t channels) {
  return SwapInner(filters, count, channels, Inner(filters.size(), count, channels));
}

template <typename T>
std::vector<T> ToStorageOrder(std::span<const T> filters, int64_t count, int64_t channels) {
  return SwapInner(filters, count, Inner(filters.size(), count, channels), channels);
}

template std::vector<float> ToReductionOrder(std::span<const float>, int64_t, int64_t);
template std::vector<int8_t> ToReductionOrder(std::span<const int8_t>, int64_t, int64_t);
template std::vector<float> ToStorageOrder(std::span<const float>, int64_t, int64_t);
template std::vector<int8_t> ToStorageOrder(std::span<const int8_t>, int64_t, int64_t);

bool HasRoomForBias(std::span<const float> bias, float input_scale,
                    std::span<const float> scales) noexcept {
  for (size_t m = 0; m < bias.size(); ++m) {
    if (scales[m] < SmallestScale(bias[m], input_scale)) return false;
  }
  return true;
}

std::vector<int32_t> QuantizeBias(std::span<const float> bias, float input_scale,
                                  std::span<const float> rows, PairBound bound,
                                  QuantizedFilters& filters) {
  const size_t count = filters.scales.size();
  const size_t length = count ? rows.size() / count : 0;
  std::vector<int32_t> codes(bias.empty() ? 0 : count);
  for (size_t m = 0; m < codes.size(); ++m) {
    const double smallest = SmallestScale(bias[m], input_scale);
    if (filters.scales[m] < smallest) {
      filters.scales[m] = static_cast<float>(smallest);
      QuantizeRow(rows.subspan(m * length, length), {}, filters.scales[m], bound,
                  std::span(filters.codes).subspan(m * length, length));
    }
    // The dequantiser's scale is the product rounded to float.
    const double scale = input_scale * filters.scales[m];
    codes[m] = static_cast<int32_t>(std::nearbyint(bias[m] / scale));
  }
  return codes;
}

}  // namespace sparsefuse

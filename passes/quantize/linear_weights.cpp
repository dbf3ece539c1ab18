#include "passes/quantize/linear_weights.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <limits>

#include "kernels/linear/pack.h"
#include "passes/framework/parallel.h"

namespace sparsefuse {
namespace {

// Scale codes tried around max|w|/127: a little clipping may pay, and the pair bound may want up to
// twice the scale (2^(16/16)).
constexpr int kStepsDown = 4;
constexpr int kStepsUp = 2;
constexpr int kStepsUpForPairs = 16;

// Takes the excess of a pair of the same sign over 128, half from each.
void BoundPair(int8_t& a, int8_t& b) noexcept {
  if ((a > 0) != (b > 0) || a == 0 || b == 0) return;
  const int excess = std::abs(a) + std::abs(b) - kMostOfPair;
  if (excess <= 0) return;
  const int sign = a > 0 ? 1 : -1;
  const int from_a = (excess + 1) / 2;
  a = static_cast<int8_t>(a - sign * from_a);
  b = static_cast<int8_t>(b - sign * (excess - from_a));
}

float LargestMagnitude(std::span<const float> row) noexcept {
  float largest = 0;
  for (float w : row) largest = std::max(largest, std::fabs(w));
  return largest;
}

// The code c, which may lie outside 0…255, of the best scale base·2^(c/16) for one row.
int BestScaleCode(std::span<const float> row, std::span<const float> importance, float base,
                  PairBound bound, std::span<int8_t> scratch) {
  const float unclipped = LargestMagnitude(row) / 127;
  if (!(unclipped >= base)) return 0;
  const int first = static_cast<int>(std::ceil(16 * std::log2(unclipped / base)));
  const int steps_up = bound == PairBound::kNone ? kStepsUp : kStepsUpForPairs;
  double best_error = std::numeric_limits<double>::infinity();
  int best = first;
  for (int code = first - kStepsDown; code <= first + steps_up; ++code) {
    const float scale = base * std::exp2(static_cast<float>(code) / 16);
    const double error = QuantizeRow(row, importance, scale, bound, scratch);
    if (error < best_error) {
      best_error = error;
      best = code;
    }
  }
  return best;
}

}  // namespace

double QuantizeRow(std::span<const float> row, std::span<const float> importance, float scale,
                   PairBound bound, std::span<int8_t> codes) noexcept {
  for (size_t k = 0; k < row.size(); ++k) {
    codes[k] = static_cast<int8_t>(std::clamp(std::nearbyint(row[k] / scale), -127.0f, 127.0f));
  }
  if (bound == PairBound::kAvx2) {
    for (size_t k = 0; k + 1 < row.size(); k += 2) BoundPair(codes[k], codes[k + 1]);
  }
  double error = 0;
  for (size_t k = 0; k < row.size(); ++k) {
    const double difference = row[k] - static_cast<double>(scale) * codes[k];
    error += (importance.empty() ? 1.0 : importance[k]) * difference * difference;
  }
  return error;
}

QuantizedWeight QuantizeLinearWeight(std::span<const float> rows, int64_t inputs, int64_t outputs,
                                     std::span<const float> importance, PairBound bound,
                                     int threads) {
  const auto row = [&](int64_t n) {
    return rows.subspan(static_cast<size_t>(n * inputs), static_cast<size_t>(inputs));
  };
  QuantizedWeight weight;
  weight.inputs = inputs;
  weight.outputs = outputs;
  weight.codes.resize(rows.size());
  const auto codes = [&](int64_t n) {
    return std::span<int8_t>(weight.codes)
        .subspan(static_cast<size_t>(n * inputs), static_cast<size_t>(inputs));
  };
  // 2^(−255/16) below the largest unclipped scale, as EncodeScales has it; shifted up afterwards
  // where a better scale is larger.
  const float largest = std::max(LargestMagnitude(rows) / 127, std::numeric_limits<float>::min());
  const float base = std::max(largest * std::exp2(-255.0f / 16), std::numeric_limits<float>::min());
  std::vector<int> best(static_cast<size_t>(outputs));
  ForEachIndex(threads, best.size(), [&](size_t i) {
    const auto n = static_cast<int64_t>(i);
    best[i] = BestScaleCode(row(n), importance, base, bound, codes(n));
  });
  const int shift = std::max(0, *std::max_element(best.begin(), best.end()) - 255);
  weight.scale_base = base * std::exp2(static_cast<float>(shift) / 16);
  weight.scale_codes.resize(static_cast<size_t>(PanelCount(outputs) * kPanelOutputs));
  for (size_t n = 0; n < best.size(); ++n) {
    weight.scale_codes[n] = static_cast<uint8_t>(std::clamp(best[n] - shift, 0, 255));
  }
  ForEachIndex(threads, best.size(), [&](size_t i) {
    const auto n = static_cast<int64_t>(i);
    const float scale = DecodeScale(weight.scale_base, weight.scale_codes[i]);
    QuantizeRow(row(n), {}, scale, bound, codes(n));
  });
  return weight;
}

double RelativeError(std::span<const float> rows, const QuantizedWeight& weight) {
  double error = 0, energy = 0;
  for (int64_t n = 0; n < weight.outputs; ++n) {
    const double scale = DecodeScale(weight.scale_base, weight.scale_codes[static_cast<size_t>(n)]);
    for (int64_t k = 0; k < weight.inputs; ++k) {
      const auto i = static_cast<size_t>(n * weight.inputs + k);
      const double difference = rows[i] - scale * weight.codes[i];
      error += difference * difference;
      energy += static_cast<double>(rows[i]) * rows[i];
    }
  }
  return energy > 0 ? std::sqrt(error / energy) : 0;
}

}  // namespace sparsefuse

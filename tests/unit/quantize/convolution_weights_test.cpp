#include "passes/quantize/convolution_weights.h"

#include <cmath>
#include <cstdlib>
#include <limits>

#include "tests/support/catch.h"
#include "tests/support/random.h"

namespace sparsefuse {
namespace {

using test::NormalValues;

// The least squared error of a pair of weights over all pairs of codes that are allowed.
double BestPairError(double a, double b, double scale) {
  double best = INFINITY;
  for (int i = -127; i <= 127; ++i) {
    for (int j = -127; j <= 127; ++j) {
      // 255·i + 255·j must fit 16 bits, and so must either alone.
      if (std::abs(i + j) > 128) continue;
      const double error = (a - scale * i) * (a - scale * i) + (b - scale * j) * (b - scale * j);
      best = std::min(best, error);
    }
  }
  return best;
}

double BruteForceError(std::span<const float> row, double scale, PairBound bound) {
  double error = 0;
  for (size_t k = 0; k < row.size(); k += 2) {
    if (k + 1 < row.size() && bound == PairBound::kAvx2) {
      error += BestPairError(row[k], row[k + 1], scale);
    } else {
      for (size_t i = k; i < std::min(k + 2, row.size()); ++i) {
        error += BestPairError(row[i], 0, scale);
      }
    }
  }
  return error;
}

TEST_CASE("the best scale of a row is no worse than any of a fine grid") {
  for (PairBound bound : {PairBound::kNone, PairBound::kAvx2}) {
    std::vector<float> row = NormalValues(25, 3);
    row[4] = 3.5f;  // next to another large one
    row[5] = 3.2f;
    std::vector<int8_t> codes(row.size());
    const float scale = BestRowScale(row, bound, codes);
    const double error = QuantizeRow(row, {}, scale, bound, codes);
    double best = INFINITY;
    for (int step = 0; step < 60; ++step) {
      best = std::min(best, BruteForceError(row, 3.5 / (60 + 2.5 * step), bound));
    }
    CHECK(error <= 1.1 * best);
    if (bound == PairBound::kNone) CHECK(scale < 3.5f / 100);
  }
}

TEST_CASE("a row of zeros or of denormals has a scale that can be divided by") {
  for (float w : {0.0f, 1e-42f}) {
    const std::vector<float> row(7, w);
    std::vector<int8_t> codes(7);
    CHECK(BestRowScale(row, PairBound::kAvx2, codes) == 1);
  }
}

TEST_CASE("filters are quantised each for itself, the same for any number of threads") {
  std::vector<float> rows = NormalValues(6 * 33, 5);
  for (size_t k = 0; k < 33; ++k) rows[2 * 33 + k] *= 1000;
  const QuantizedFilters one = QuantizeFilters(rows, 6, PairBound::kAvx2, 1);
  const QuantizedFilters four = QuantizeFilters(rows, 6, PairBound::kAvx2, 4);
  CHECK(one.codes == four.codes);
  CHECK(one.scales == four.scales);
  CHECK(one.scales[2] > 100 * one.scales[1]);
  double error = 0, energy = 0;
  for (size_t m = 0; m < 6; ++m) {
    for (size_t k = 0; k < 33; ++k) {
      const double w = rows[m * 33 + k];
      const double difference = w - static_cast<double>(one.scales[m]) * one.codes[m * 33 + k];
      error += difference * difference;
      energy += w * w;
      if (k % 2 == 0 && k + 1 < 33) {
        CHECK(std::abs(one.codes[m * 33 + k] + one.codes[m * 33 + k + 1]) <= 128);
      }
    }
  }
  CHECK(one.relative_error == Approx(std::sqrt(error / energy)));
}

TEST_CASE("reduction order puts the channels innermost, storage order undoes it") {
  // [M = 2, C = 3, S = 2], the value tells its place: 100·m + 10·c + s.
  std::vector<float> stored;
  for (int m = 0; m < 2; ++m) {
    for (int c = 0; c < 3; ++c) {
      for (int s = 0; s < 2; ++s) stored.push_back(static_cast<float>(100 * m + 10 * c + s));
    }
  }
  const std::vector<float> reduced = ToReductionOrder(std::span<const float>(stored), 2, 3);
  CHECK(reduced == std::vector<float>{0, 10, 20, 1, 11, 21, 100, 110, 120, 101, 111, 121});
  const std::vector<int8_t> codes = {0, 10, 20, 1, 11, 21, 100, 110, 120, 101, 111, 121};
  CHECK(ToStorageOrder(std::span<const int8_t>(codes), 2, 3) ==
        std::vector<int8_t>{0, 1, 10, 11, 20, 21, 100, 101, 110, 111, 120, 121});
}

TEST_CASE("a bias is a multiple of input scale times filter scale") {
  const std::vector<float> rows = {1, -1, 0.5f, 0.25f};
  QuantizedFilters filters = QuantizeFilters(rows, 2, PairBound::kNone, 1);
  const std::vector<float> scales = filters.scales;
  const std::vector<int32_t> bias =
      QuantizeBias(std::vector<float>{3, -0.7f}, 0.02f, rows, PairBound::kNone, filters);
  REQUIRE(bias.size() == 2);
  CHECK(filters.scales == scales);
  CHECK(bias[0] * (0.02 * scales[0]) == Approx(3).epsilon(1e-4));
  CHECK(bias[1] * (0.02 * scales[1]) == Approx(-0.7).epsilon(1e-4));
  CHECK(QuantizeBias({}, 0.02f, rows, PairBound::kNone, filters).empty());
}

TEST_CASE("a bias too large for its filter's scale raises the scale instead of overflowing") {
  const std::vector<float> rows = {1e-9f, 2e-9f, 1, 2};  // a dead filter with a living bias
  QuantizedFilters filters = QuantizeFilters(rows, 2, PairBound::kAvx2, 1);
  const float living = filters.scales[1];
  const std::vector<int32_t> bias =
      QuantizeBias(std::vector<float>{50, 1}, 1e-3f, rows, PairBound::kAvx2, filters);
  CHECK(std::abs(static_cast<double>(bias[0])) <= (1 << 30) + 128.0);
  CHECK(bias[0] * (1e-3 * filters.scales[0]) == Approx(50).epsilon(1e-4));
  CHECK(filters.scales[1] == living);
  for (size_t k = 0; k < 2; ++k) {
    CHECK(std::fabs(filters.codes[k] * filters.scales[0] - rows[k]) <= filters.scales[0] / 2);
  }
}

}  // namespace
}  // namespace sparsefuse

#include "passes/quantize/linear_weights.h"

#include <cmath>
#include <cstdlib>

#include "kernels/linear/pack.h"
#include "tests/support/catch.h"
#include "tests/support/random.h"

namespace sparsefuse {
namespace {

using test::NormalValues;

// The best code of a grid, by trying every scale and every code.
double BruteForceRowError(std::span<const float> row, float scale) {
  double error = 0;
  for (float w : row) {
    double best = INFINITY;
    for (int code = -127; code <= 127; ++code) {
      const double difference = w - static_cast<double>(scale) * code;
      best = std::min(best, difference * difference);
    }
    error += best;
  }
  return error;
}

TEST_CASE("a row is rounded to the nearest codes") {
  const std::vector<float> row = NormalValues(257, 1);
  std::vector<int8_t> codes(row.size());
  for (float scale : {0.01f, 0.02f, 0.05f}) {
    const double error = QuantizeRow(row, {}, scale, PairBound::kNone, codes);
    CHECK(error == Approx(BruteForceRowError(row, scale)).epsilon(1e-9));
  }
}

TEST_CASE("halves round to even and large weights are clamped") {
  const std::vector<float> row = {0.5f, 1.5f, -0.5f, -2.5f, 1000, -1000};
  std::vector<int8_t> codes(row.size());
  QuantizeRow(row, {}, 1, PairBound::kNone, codes);
  CHECK(codes == std::vector<int8_t>{0, 2, 0, -2, 127, -127});
}

TEST_CASE("bounded pairs cannot overflow 16 bits under any activation") {
  std::vector<float> row;
  for (int a = -130; a <= 130; a += 3) {
    for (int b = -130; b <= 130; b += 7) {
      row.push_back(static_cast<float>(a));
      row.push_back(static_cast<float>(b));
    }
  }
  row.push_back(127);  // an odd one out has no partner
  std::vector<int8_t> codes(row.size());
  QuantizeRow(row, {}, 1, PairBound::kAvx2, codes);
  for (size_t k = 0; k + 1 < codes.size(); k += 2) {
    for (int x : {0, 255}) {
      for (int y : {0, 255}) CHECK(std::abs(x * codes[k] + y * codes[k + 1]) <= 32767);
    }
    // Only pairs of one sign give something up, and no more than the excess.
    const int a = static_cast<int>(std::clamp(row[k], -127.0f, 127.0f));
    const int b = static_cast<int>(std::clamp(row[k + 1], -127.0f, 127.0f));
    const int excess = a * b > 0 ? std::max(0, std::abs(a) + std::abs(b) - 128) : 0;
    CHECK(std::abs(a - codes[k]) + std::abs(b - codes[k + 1]) == excess);
  }
  CHECK(codes.back() == 127);
}

TEST_CASE("no other scale near the largest weight fits a row better") {
  const int64_t inputs = 96, outputs = 8;
  const std::vector<float> rows = NormalValues(inputs * outputs, 2);
  const std::vector<float> importance = [&] {
    std::vector<float> h = NormalValues(inputs, 3);
    for (float& v : h) v *= v;
    return h;
  }();
  for (PairBound bound : {PairBound::kNone, PairBound::kAvx2}) {
    const QuantizedWeight weight =
        QuantizeLinearWeight(rows, inputs, outputs, importance, bound, 1);
    std::vector<int8_t> codes(inputs);
    for (int64_t n = 0; n < outputs; ++n) {
      const std::span<const float> row(rows.data() + n * inputs, inputs);
      const int chosen = weight.scale_codes[static_cast<size_t>(n)];
      const double error =
          QuantizeRow(row, importance, DecodeScale(weight.scale_base, static_cast<uint8_t>(chosen)),
                      bound, codes);
      float largest = 0;
      for (float w : row) largest = std::max(largest, std::fabs(w));
      const int unclipped =
          static_cast<int>(std::ceil(16 * std::log2(largest / 127 / weight.scale_base) - 1e-3));
      for (int other = std::max(0, unclipped - 4); other <= std::min(255, unclipped + 2); ++other) {
        const double theirs =
            QuantizeRow(row, importance,
                        DecodeScale(weight.scale_base, static_cast<uint8_t>(other)), bound, codes);
        CHECK(theirs >= error * (1 - 1e-6));
      }
    }
  }
}

TEST_CASE("int8 weights of normal rows are within one percent") {
  const int64_t inputs = 256, outputs = 40;
  const std::vector<float> rows = NormalValues(inputs * outputs, 4, 0.05f);
  const QuantizedWeight plain =
      QuantizeLinearWeight(rows, inputs, outputs, {}, PairBound::kNone, 1);
  const QuantizedWeight bounded =
      QuantizeLinearWeight(rows, inputs, outputs, {}, PairBound::kAvx2, 1);
  CHECK(RelativeError(rows, plain) < 0.009);
  CHECK(RelativeError(rows, bounded) < 0.012);
  CHECK(RelativeError(rows, plain) <= RelativeError(rows, bounded));
}

TEST_CASE("rows of very different size share one base") {
  const int64_t inputs = 32;
  std::vector<float> rows = NormalValues(inputs * 4, 5);
  for (int64_t k = 0; k < inputs; ++k) {
    rows[static_cast<size_t>(inputs + k)] *= 1e-3f;
    rows[static_cast<size_t>(2 * inputs + k)] = 0;
    rows[static_cast<size_t>(3 * inputs + k)] *= 1e-20f;  // below the base: rounds to nothing
  }
  const QuantizedWeight weight = QuantizeLinearWeight(rows, inputs, 4, {}, PairBound::kAvx2, 1);
  for (int64_t n : {0, 1}) {
    const std::span<const float> row(rows.data() + n * inputs, inputs);
    const float scale = DecodeScale(weight.scale_base, weight.scale_codes[static_cast<size_t>(n)]);
    double error = 0, energy = 0;
    for (int64_t k = 0; k < inputs; ++k) {
      const double w = row[static_cast<size_t>(k)];
      error += std::pow(w - scale * weight.codes[static_cast<size_t>(n * inputs + k)], 2);
      energy += w * w;
    }
    CHECK(std::sqrt(error / energy) < 0.02);
  }
  for (int64_t k = 2 * inputs; k < 4 * inputs; ++k) {
    CHECK(weight.codes[static_cast<size_t>(k)] == 0);
  }
}

TEST_CASE("weights do not depend on the number of threads") {
  const std::vector<float> rows = NormalValues(64 * 33, 6);
  const QuantizedWeight one = QuantizeLinearWeight(rows, 64, 33, {}, PairBound::kAvx2, 1);
  const QuantizedWeight three = QuantizeLinearWeight(rows, 64, 33, {}, PairBound::kAvx2, 3);
  CHECK(one.codes == three.codes);
  CHECK(one.scale_codes == three.scale_codes);
  CHECK(one.scale_base == three.scale_base);
}

}  // namespace
}  // namespace sparsefuse

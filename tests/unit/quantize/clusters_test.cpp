// Scale codes: searches against trying every code, merging against its definition.

#include "passes/quantize/clusters.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <set>

#include "tests/support/catch.h"
#include "tests/support/random.h"

namespace sparsefuse {
namespace {

constexpr double kInfinite = std::numeric_limits<double>::infinity();

using test::NormalValues;

std::vector<float> Squares(std::vector<float> values) {
  for (float& v : values) v *= v;
  return values;
}

// Of one cell, every code of the encoding tried for every weight.
double NaiveError(std::span<const float> cell, std::span<const float> importance, double scale,
                  const RoundingRule& rule) {
  double sum = 0;
  for (size_t k = 0; k < cell.size(); ++k) {
    double least = kInfinite;
    for (int byte = -128; byte <= 127; ++byte) {
      if (rule.encoding == Encoding::kInt4 && (byte < -8 || byte > 7)) continue;
      const auto code = static_cast<int8_t>(byte);
      const double full = cell[k] - scale * DecodeWeight(rule.encoding, code);
      double error = full * full;
      if (IsNested(rule.encoding)) {
        const double high = cell[k] - scale * DecodeHigh(rule.encoding, code);
        error = rule.share8 * error + (1 - rule.share8) * high * high;
      }
      least = std::min(least, error);
    }
    sum += (importance.empty() ? 1.0 : importance[k]) * least;
  }
  return sum;
}

TEST_CASE("the error of a cell is that of its best codes") {
  const std::vector<float> cell = NormalValues(96, 1);
  const std::vector<float> importance = Squares(NormalValues(96, 2));
  for (const Encoding encoding : {Encoding::kInt4, Encoding::kNested1, Encoding::kNested4}) {
    const RoundingRule rule{.encoding = encoding, .share8 = 0.3};
    for (const double clip : {1.0, 0.7, 0.4}) {
      const auto scale = static_cast<float>(clip * 2.5 / LargestReading(encoding));
      CHECK(CellError(cell, importance, scale, rule) ==
            Approx(NaiveError(cell, importance, scale, rule)));
      CHECK(CellError(cell, {}, scale, rule) == Approx(NaiveError(cell, {}, scale, rule)));
    }
  }
}

TEST_CASE("cells get the best scale near their largest weight where clusters are not limited") {
  const int64_t inputs = 150, outputs = 34;
  const std::vector<float> rows = NormalValues(inputs * outputs, 3);
  const std::vector<float> importance = Squares(NormalValues(inputs, 4));
  const WeightRowsView weight{rows, inputs, outputs};
  const RoundingRule rule{.encoding = Encoding::kInt4};
  const CellScales scales = SearchScales(weight, 64, importance, rule, 256, 1);
  REQUIRE(scales.cells_per_row == 3);  // of 64, 64 and 22 inputs
  for (int64_t n = 0; n < outputs; ++n) {
    for (int64_t c = 0; c < 3; ++c) {
      const auto first = static_cast<size_t>(c * 64);
      const size_t width = c == 2 ? 22 : 64;
      const auto cell = weight.Row(n).subspan(first, width);
      const auto h = std::span<const float>(importance).subspan(first, width);
      const double own = CellError(cell, h, scales.Scale(n, c * 64), rule);
      float largest = 0;
      for (const float w : cell) largest = std::max(largest, std::fabs(w));
      const int unclipped = static_cast<int>(std::ceil(16 * std::log2(largest / 7 / scales.base)));
      for (int code = std::max(0, unclipped - 24); code <= unclipped + 4; ++code) {
        const float other = scales.base * std::exp2(static_cast<float>(code) / 16);
        REQUIRE(CellError(cell, h, other, rule) >= own * (1 - 1e-6));
      }
    }
  }
  const CellScales threaded = SearchScales(weight, 64, importance, rule, 256, 3);
  CHECK(threaded.codes == scales.codes);
  CHECK(threaded.base == scales.base);
}

TEST_CASE("absmax scales clip nothing and are within a step of the largest weight") {
  const int64_t inputs = 40, outputs = 20;
  std::vector<float> rows = NormalValues(inputs * outputs, 5);
  std::fill_n(rows.begin() + 3 * inputs, inputs, 0.0f);
  const WeightRowsView weight{rows, inputs, outputs};
  for (const Encoding encoding : {Encoding::kInt8, Encoding::kInt4, Encoding::kNested4}) {
    const CellScales scales = AbsmaxScales(weight, 16, encoding);
    for (int64_t n = 0; n < outputs; ++n) {
      for (int64_t c = 0; c < 3; ++c) {
        float largest = 0;
        for (int64_t k = 16 * c; k < std::min<int64_t>(inputs, 16 * c + 16); ++k) {
          largest = std::max(largest, std::fabs(weight.Row(n)[static_cast<size_t>(k)]));
        }
        const double reach = scales.Scale(n, 16 * c) * LargestReading(encoding);
        CHECK(reach >= largest * (1 - 1e-5));
        if (n != 3) CHECK(reach <= largest * std::exp2(1.01 / 16));
      }
    }
  }
}

std::vector<std::vector<double>> RandomErrors(size_t cells, size_t codes, uint32_t seed) {
  std::mt19937 random(seed);
  std::uniform_real_distribution<double> place(4, static_cast<double>(codes) - 4), size(0.5, 2);
  std::vector<std::vector<double>> errors;
  for (size_t c = 0; c < cells; ++c) {
    const double best = place(random), weight = size(random);
    std::vector<double> own;
    for (size_t k = 0; k < codes; ++k) {
      own.push_back(weight * std::pow(static_cast<double>(k) - best, 2));
    }
    errors.push_back(std::move(own));
  }
  return errors;
}

double Total(const std::vector<std::vector<double>>& errors, const std::vector<int>& codes) {
  double sum = 0;
  for (size_t c = 0; c < codes.size(); ++c) sum += errors[c][static_cast<size_t>(codes[c])];
  return sum;
}

TEST_CASE("clusters merge down to what may remain, each cell with the best code left") {
  const auto errors = RandomErrors(60, 40, 6);
  double before = 0;
  for (const int64_t most : {256, 12, 5, 2, 1}) {
    const std::vector<int> codes = MergeClusters(errors, most);
    const std::set<int> left(codes.begin(), codes.end());
    CHECK(static_cast<int64_t>(left.size()) <= most);
    for (size_t c = 0; c < codes.size(); ++c) {
      for (const int code : left) {
        CHECK(errors[c][static_cast<size_t>(code)] >= errors[c][static_cast<size_t>(codes[c])]);
      }
    }
    CHECK(Total(errors, codes) >= before);
    before = Total(errors, codes);
  }
  // One cluster: the code with the smallest sum.
  double least = kInfinite;
  for (int k = 0; k < 40; ++k) {
    least = std::min(least, Total(errors, std::vector<int>(errors.size(), k)));
  }
  CHECK(before == Approx(least));
}

TEST_CASE("few clusters cost little more than the best choice of codes") {
  const auto errors = RandomErrors(12, 16, 7);
  double best = kInfinite;  // of all choices of three codes
  for (int a = 0; a < 16; ++a) {
    for (int b = a; b < 16; ++b) {
      for (int c = b; c < 16; ++c) {
        double sum = 0;
        for (const auto& cell : errors) {
          sum += std::min({cell[static_cast<size_t>(a)], cell[static_cast<size_t>(b)],
                           cell[static_cast<size_t>(c)]});
        }
        best = std::min(best, sum);
      }
    }
  }
  CHECK(Total(errors, MergeClusters(errors, 3)) <= 1.5 * best);
}

TEST_CASE("cells that can share no code keep their own") {
  std::vector<std::vector<double>> errors = {{0, 1, kInfinite, kInfinite},
                                             {kInfinite, kInfinite, 1, 0}};
  CHECK(MergeClusters(errors, 1) == std::vector<int>{0, 3});
}

}  // namespace
}  // namespace sparsefuse

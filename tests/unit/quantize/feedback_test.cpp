// Rounding, with and without error feedback, against updates written with explicit inverses.

#include "passes/quantize/feedback.h"

#include <Eigen/LU>
#include <cmath>
#include <cstdlib>
#include <random>

#include "passes/statistics/dense.h"
#include "tests/support/catch.h"
#include "tests/support/random.h"

namespace sparsefuse {
namespace {

using Eigen::MatrixXd;
using test::NormalValues;

// Mean of x·xᵀ of inputs that depend on each other and differ in size.
MatrixXd UnevenGram(int64_t inputs, uint32_t seed) {
  const int64_t rows = 3 * inputs;
  const std::vector<float> values = NormalValues(rows * inputs, seed);
  MatrixXd x = Eigen::Map<const Eigen::MatrixXf>(values.data(), rows, inputs).cast<double>();
  for (Eigen::Index k = 1; k < inputs; ++k) x.col(k) += 0.8 * x.col(k - 1);
  for (Eigen::Index k = 0; k < inputs; k += 7) x.col(k) *= 4;
  return x.transpose() * x / static_cast<double>(rows);
}

// Every code of the encoding, by the definition of its readings.
int8_t BestCode(const RoundingRule& rule, double w8, double w4, int most) {
  double least = INFINITY;
  int8_t best = 0;
  for (int byte = -128; byte <= 127; ++byte) {
    const auto code = static_cast<int8_t>(byte);
    if (!IsNested(rule.encoding) &&
        (std::abs(byte) > 127 || (rule.encoding == Encoding::kInt4 && (byte < -8 || byte > 7)))) {
      continue;
    }
    const int read8 = DecodeWeight(rule.encoding, code);
    if (std::abs(read8) > most) continue;
    const double miss8 = w8 - read8;
    double error = miss8 * miss8;
    if (IsNested(rule.encoding)) {
      const double miss4 = w4 - DecodeHigh(rule.encoding, code);
      error = rule.share8 * error + (1 - rule.share8) * miss4 * miss4;
    }
    if (error < least) {
      least = error;
      best = code;
    }
  }
  return best;
}

double Loss(const RoundingRule& rule, int8_t code, double w8, double w4) {
  const double miss8 = w8 - DecodeWeight(rule.encoding, code);
  const double miss4 = w4 - DecodeHigh(rule.encoding, code);
  return rule.share8 * miss8 * miss8 + (1 - rule.share8) * miss4 * miss4;
}

TEST_CASE("nested codes are the best of all codes for both readings") {
  std::mt19937 random(1);
  std::uniform_real_distribution<double> wide(-160, 160), near(-30, 30);
  for (const Encoding encoding : {Encoding::kNested1, Encoding::kNested4}) {
    for (const double share : {0.2, 0.5, 0.8}) {
      const RoundingRule rule{.encoding = encoding, .share8 = share};
      for (const int most : {128, 77, 6, 0}) {
        for (int i = 0; i < 400; ++i) {
          const double w8 = wide(random), w4 = w8 + near(random);
          double misses[2];
          const int8_t code = RoundNested(rule, w8, w4, most, misses);
          const int8_t best = BestCode(rule, w8, w4, most);
          CHECK(std::abs(DecodeWeight(encoding, code)) <= most);
          CHECK(Loss(rule, code, w8, w4) == Approx(Loss(rule, best, w8, w4)));
          CHECK(misses[0] == Approx(w8 - DecodeWeight(encoding, code)));
          CHECK(misses[1] == Approx(w4 - DecodeHigh(encoding, code)));
        }
      }
    }
  }
}

// As feedback.h has it, with the inverse of what is left of H taken anew for every input.
std::vector<int8_t> NaiveFeedback(const WeightRowsView& weight, const CellScales& scales,
                                  const RoundingRule& rule, const MatrixXd& damped) {
  std::vector<int8_t> codes(weight.rows.size());
  const Eigen::Index inputs = weight.inputs;
  std::vector<MatrixXd> inverses;
  for (Eigen::Index k = 0; k < inputs; ++k) {
    inverses.push_back(damped.bottomRightCorner(inputs - k, inputs - k).inverse());
  }
  for (int64_t n = 0; n < weight.outputs; ++n) {
    const std::span<const float> row = weight.Row(n);
    Eigen::VectorXd w8 = Eigen::Map<const Eigen::VectorXf>(row.data(), inputs).cast<double>();
    Eigen::VectorXd w4 = w8;
    for (Eigen::Index k = 0; k < inputs; ++k) {
      const double scale = scales.Scale(n, k);
      const int8_t code = BestCode(rule, w8[k] / scale, w4[k] / scale, 128);
      codes[static_cast<size_t>(n * inputs + k)] = code;
      const MatrixXd& inverse = inverses[static_cast<size_t>(k)];
      const Eigen::VectorXd spread = inverse.col(0) / inverse(0, 0);
      const double miss8 = w8[k] - scale * DecodeWeight(rule.encoding, code);
      const double miss4 = w4[k] - scale * DecodeHigh(rule.encoding, code);
      w8.tail(inputs - k) -= miss8 * spread;
      w4.tail(inputs - k) -= miss4 * spread;
    }
  }
  return codes;
}

TEST_CASE("error feedback is that of explicit inverses, across panels of inputs and outputs") {
  const int64_t inputs = 134, outputs = 35;
  const std::vector<float> rows = NormalValues(inputs * outputs, 2);
  const WeightRowsView weight{rows, inputs, outputs};
  const MatrixXd h = UnevenGram(inputs, 3);
  const double damping = Decompose(h).damping;
  const MatrixXd damped = h + damping * MatrixXd::Identity(inputs, inputs);
  const MatrixXd factor = FeedbackFactor(Decompose(h));
  for (const Encoding encoding :
       {Encoding::kInt8, Encoding::kInt4, Encoding::kNested1, Encoding::kNested4}) {
    const RoundingRule rule{.encoding = encoding};
    const CellScales scales = AbsmaxScales(weight, 64, encoding);
    const std::vector<int8_t> codes = RoundWeights(weight, scales, rule, &factor, 1);
    CHECK(codes == NaiveFeedback(weight, scales, rule, damped));
    CHECK(codes == RoundWeights(weight, scales, rule, &factor, 3));
  }
}

TEST_CASE("without feedback every weight goes to its nearest code") {
  const int64_t inputs = 70, outputs = 33;
  const std::vector<float> rows = NormalValues(inputs * outputs, 4);
  const WeightRowsView weight{rows, inputs, outputs};
  for (const Encoding encoding : {Encoding::kInt8, Encoding::kInt4, Encoding::kNested4}) {
    const RoundingRule rule{.encoding = encoding};
    const CellScales scales = AbsmaxScales(weight, 64, encoding);
    const std::vector<int8_t> codes = RoundWeights(weight, scales, rule, nullptr, 1);
    for (int64_t n = 0; n < outputs; ++n) {
      for (int64_t k = 0; k < inputs; ++k) {
        const auto i = static_cast<size_t>(n * inputs + k);
        const double w = static_cast<double>(rows[i]) / scales.Scale(n, k);
        REQUIRE(codes[i] == BestCode(rule, w, w, 128));
      }
    }
  }
}

TEST_CASE("feedback lowers the error on inputs that depend on each other") {
  const int64_t inputs = 160, outputs = 40;
  const std::vector<float> rows = NormalValues(inputs * outputs, 5);
  const WeightRowsView weight{rows, inputs, outputs};
  const MatrixXd h = UnevenGram(inputs, 6);
  const MatrixXd factor = FeedbackFactor(Decompose(h));
  for (const Encoding encoding :
       {Encoding::kInt8, Encoding::kInt4, Encoding::kNested1, Encoding::kNested4}) {
    const RoundingRule rule{.encoding = encoding};
    const CellScales scales = AbsmaxScales(weight, inputs, encoding);
    const auto error = [&](const MatrixXd* u, Reading reading) {
      const auto codes = RoundWeights(weight, scales, rule, u, 1);
      return BlockError(weight, Decode(codes, scales, inputs, encoding, reading), h, 1);
    };
    // The two readings of a nested code pull at each other: the 8-bit one pays.
    const Reading reading = IsNested(encoding) ? Reading::kHigh : Reading::kFull;
    CHECK(error(&factor, reading) < 0.6 * error(nullptr, reading));
    if (IsNested(encoding)) {
      CHECK(error(&factor, Reading::kFull) < 0.5 * error(&factor, Reading::kHigh));
    }
  }
}

TEST_CASE("bounded pairs stay bounded under feedback") {
  const int64_t inputs = 131, outputs = 40;
  std::vector<float> rows = NormalValues(inputs * outputs, 7);
  for (size_t i = 0; i < rows.size(); i += 3) rows[i] = rows[i] > 0 ? 3.0f : -3.0f;
  const WeightRowsView weight{rows, inputs, outputs};
  const MatrixXd factor = FeedbackFactor(Decompose(UnevenGram(inputs, 8)));
  for (const Encoding encoding : {Encoding::kInt8, Encoding::kNested1}) {
    const RoundingRule rule{.encoding = encoding, .bound = PairBound::kAvx2};
    const CellScales scales = AbsmaxScales(weight, inputs, encoding);
    for (const MatrixXd* u : {&factor, static_cast<const MatrixXd*>(nullptr)}) {
      const std::vector<int8_t> codes = RoundWeights(weight, scales, rule, u, 1);
      for (int64_t n = 0; n < outputs; ++n) {
        for (int64_t k = 0; k + 1 < inputs; k += 2) {
          const auto i = static_cast<size_t>(n * inputs + k);
          const int a = DecodeWeight(encoding, codes[i]), b = DecodeWeight(encoding, codes[i + 1]);
          if ((a > 0) == (b > 0)) REQUIRE(std::abs(a) + std::abs(b) <= 128);
        }
      }
    }
  }
}

TEST_CASE("zero blocks stay zero, and what they miss is fed forward") {
  const int64_t inputs = 66, outputs = 70;  // the last quad and the last panel are not whole
  std::vector<float> rows = NormalValues(inputs * outputs, 9);
  const auto zero = [&](int64_t panel, int64_t quad) {
    for (int64_t n = panel * 32; n < std::min<int64_t>(outputs, panel * 32 + 32); ++n) {
      for (int64_t k = quad * 4; k < std::min<int64_t>(inputs, quad * 4 + 4); ++k) {
        rows[static_cast<size_t>(n * inputs + k)] = 0;
      }
    }
  };
  zero(0, 3);
  zero(1, 16);
  zero(2, 0);
  const WeightRowsView weight{rows, inputs, outputs};
  const std::vector<bool> found = ZeroBlocks(std::span<const float>(rows), inputs, outputs);
  CHECK(std::count(found.begin(), found.end(), true) == 3);
  CHECK((found[3] && found[17 + 16] && found[34]));
  const MatrixXd factor = FeedbackFactor(Decompose(UnevenGram(inputs, 10)));
  for (const Encoding encoding : {Encoding::kInt8, Encoding::kInt4, Encoding::kNested4}) {
    const CellScales scales = AbsmaxScales(weight, inputs, encoding);
    const std::vector<int8_t> codes =
        RoundWeights(weight, scales, {.encoding = encoding}, &factor, 1);
    const std::vector<bool> left = ZeroBlocks(std::span<const int8_t>(codes), inputs, outputs);
    for (size_t b = 0; b < found.size(); ++b) {
      if (found[b]) CHECK(left[b]);
    }
  }
}

TEST_CASE("the block error is the energy of what the outputs lose") {
  const int64_t inputs = 20, outputs = 37, samples = 50;
  const std::vector<float> rows = NormalValues(inputs * outputs, 11);
  const std::vector<float> other = NormalValues(inputs * outputs, 12);
  const std::vector<float> x = NormalValues(samples * inputs, 13);
  MatrixXd h = MatrixXd::Zero(inputs, inputs);
  double expected = 0, plain = 0;
  for (int64_t s = 0; s < samples; ++s) {
    const Eigen::VectorXd row =
        Eigen::Map<const Eigen::VectorXf>(x.data() + s * inputs, inputs).cast<double>();
    h += row * row.transpose();
    for (int64_t n = 0; n < outputs; ++n) {
      double lost = 0;
      for (int64_t k = 0; k < inputs; ++k) {
        const auto i = static_cast<size_t>(n * inputs + k);
        lost += row[k] * (static_cast<double>(rows[i]) - other[i]);
      }
      expected += lost * lost;
    }
  }
  for (size_t i = 0; i < rows.size(); ++i) {
    plain += std::pow(static_cast<double>(rows[i]) - other[i], 2);
  }
  const WeightRowsView weight{rows, inputs, outputs};
  CHECK(BlockError(weight, other, h, 2) == Approx(expected));
  CHECK(BlockError(weight, other, {}, 1) == Approx(plain));
}

}  // namespace
}  // namespace sparsefuse

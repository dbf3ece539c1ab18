#include "passes/quantize/descent.h"

#include <random>

#include "passes/quantize/feedback.h"
#include "tests/support/catch.h"
#include "tests/support/random.h"

namespace sparsefuse {
namespace {

using Eigen::MatrixXd;
using Eigen::VectorXd;
using test::NormalValues;

// Of inputs that have much in common.
MatrixXd MixedGram(int64_t inputs, uint32_t seed) {
  const int64_t samples = 4 * inputs, sources = inputs / 3;
  std::mt19937 random(seed);
  std::normal_distribution<double> normal;
  const auto draw = [&] { return normal(random); };
  const MatrixXd x =
      MatrixXd::NullaryExpr(samples, sources, draw) * MatrixXd::NullaryExpr(sources, inputs, draw) +
      0.5 * MatrixXd::NullaryExpr(samples, inputs, draw);
  return x.transpose() * x / static_cast<double>(samples) +
         0.01 * MatrixXd::Identity(inputs, inputs);
}

// What descends, of output `n`, by its definition.
double Objective(const WeightRowsView& weight, const CellScales& scales, const RoundingRule& rule,
                 const MatrixXd& h, int64_t n, std::span<const int8_t> codes) {
  VectorXd full(weight.inputs), high(weight.inputs);
  for (int64_t k = 0; k < weight.inputs; ++k) {
    const int8_t code = codes[static_cast<size_t>(n * weight.inputs + k)];
    const double w = weight.Row(n)[static_cast<size_t>(k)], scale = scales.Scale(n, k);
    full(k) = w - scale * DecodeWeight(rule.encoding, code);
    high(k) = w - scale * DecodeHigh(rule.encoding, code);
  }
  const double share = IsNested(rule.encoding) ? rule.share8 : 1;
  return share * full.dot(h * full) + (1 - share) * high.dot(h * high);
}

std::vector<int8_t> AllCodes(Encoding encoding) {
  std::vector<int8_t> codes;
  for (int code = encoding == Encoding::kInt4 ? -8 : -128; code < 128; ++code) {
    if (encoding == Encoding::kInt4 && code > 7) break;
    codes.push_back(static_cast<int8_t>(code));
  }
  return codes;
}

TEST_CASE("descent ends where no code of its own gains, below where it began") {
  const int64_t inputs = 40, outputs = 34;
  const std::vector<float> rows = NormalValues(inputs * outputs, 1);
  const WeightRowsView weight{rows, inputs, outputs};
  const MatrixXd h = MixedGram(inputs, 2);
  const MatrixXd factor = FeedbackFactor(Decompose(h));
  for (const RoundingRule rule : {RoundingRule{.encoding = Encoding::kInt4},
                                  RoundingRule{.encoding = Encoding::kNested4, .share8 = 0.5},
                                  RoundingRule{.encoding = Encoding::kNested1, .share8 = 0.2}}) {
    CAPTURE(static_cast<int>(rule.encoding));
    const CellScales scales = AbsmaxScales(weight, inputs, rule.encoding);
    const std::vector<int8_t> start = RoundWeights(weight, scales, rule, &factor, 1);
    std::vector<int8_t> codes = start;
    DescendWeights(weight, scales, rule, h, 1, codes);
    double before = 0, after = 0;
    for (const int64_t n : {int64_t{0}, int64_t{5}, outputs - 1}) {
      const double least = Objective(weight, scales, rule, h, n, codes);
      before += Objective(weight, scales, rule, h, n, start);
      after += least;
      for (int64_t k = 0; k < inputs; ++k) {
        int8_t& code = codes[static_cast<size_t>(n * inputs + k)];
        const int8_t own = code;
        for (const int8_t other : AllCodes(rule.encoding)) {
          code = other;
          REQUIRE(Objective(weight, scales, rule, h, n, codes) >= least * (1 - 1e-9));
        }
        code = own;
      }
    }
    CHECK(after < 0.97 * before);
    std::vector<int8_t> threaded = start;
    DescendWeights(weight, scales, rule, h, 3, threaded);
    CHECK(threaded == codes);
  }
}

TEST_CASE("zero blocks and outputs of zeros stay") {
  const int64_t inputs = 38, outputs = 40;
  std::vector<float> rows = NormalValues(inputs * outputs, 3);
  for (int64_t n = 0; n < 32; ++n) {
    for (int64_t k = 8; k < 12; ++k) rows[static_cast<size_t>(n * inputs + k)] = 0;
  }
  for (int64_t k = 0; k < inputs; ++k) rows[static_cast<size_t>(35 * inputs + k)] = 0;
  const WeightRowsView weight{rows, inputs, outputs};
  const MatrixXd h = MixedGram(inputs, 4);
  const RoundingRule rule{.encoding = Encoding::kInt4};
  const CellScales scales = AbsmaxScales(weight, inputs, rule.encoding);
  std::vector<int8_t> codes = RoundWeights(weight, scales, rule, nullptr, 1);
  const std::vector<int8_t> start = codes;
  DescendWeights(weight, scales, rule, h, 1, codes);
  CHECK(codes != start);
  for (int64_t n = 0; n < outputs; ++n) {
    for (int64_t k = 0; k < inputs; ++k) {
      if ((n < 32 && k >= 8 && k < 12) || n == 35) {
        REQUIRE(codes[static_cast<size_t>(n * inputs + k)] == 0);
      }
    }
  }
}

}  // namespace
}  // namespace sparsefuse

// One weight through the search, and its scales as the operators read them.

#include "passes/quantize/weight_search.h"

#include "passes/quantize/descent.h"
#include "passes/quantize/smoothing.h"
#include "tests/support/catch.h"
#include "tests/support/random.h"

namespace sparsefuse {
namespace {

using test::NormalValues;

ActivationRows Activations(int64_t rows, int64_t inputs, uint32_t seed) {
  const std::vector<float> values = NormalValues(rows * inputs, seed);
  ActivationRows x = Eigen::Map<const ActivationRows>(values.data(), rows, inputs);
  for (Eigen::Index k = 1; k < inputs; ++k) x.col(k) += 0.7f * x.col(k - 1);
  return x;
}

Eigen::MatrixXd GramOf(const ActivationRows& x) {
  const Eigen::MatrixXd wide = x.cast<double>();
  return wide.transpose() * wide / static_cast<double>(x.rows());
}

TEST_CASE("what the search returns is no worse than any of its candidates alone") {
  const int64_t inputs = 128, outputs = 40;
  const std::vector<float> rows = NormalValues(inputs * outputs, 1);
  const Eigen::MatrixXd fit = GramOf(Activations(900, inputs, 2));
  const Eigen::MatrixXd select = GramOf(Activations(300, inputs, 3));
  for (const Encoding encoding : {Encoding::kInt8, Encoding::kInt4, Encoding::kNested4}) {
    WeightRequest request{.weight = {rows, inputs, outputs},
                          .rule = {.encoding = encoding},
                          .width = 64,
                          .fit = &fit,
                          .select = &select};
    const CodedWeight best = SearchWeight(request);
    const auto loss = [&](const CodedWeight& coded) {
      return IsNested(encoding) ? coded.error + coded.error_high : coded.error;
    };
    CHECK(best.error < best.plain_error);
    for (const ScaleChoice scales : {ScaleChoice::kClusters, ScaleChoice::kAbsmax}) {
      for (const FeedbackUse feedback : {FeedbackUse::kNever, FeedbackUse::kAlways}) {
        request.scales = scales;
        request.feedback = feedback;
        const CodedWeight alone = SearchWeight(request);
        CHECK(alone.feedback == (feedback == FeedbackUse::kAlways));
        CHECK(loss(best) <= loss(alone) * (1 + 1e-12));
        CHECK(alone.plain_error == best.plain_error);
      }
    }
    // The error that is reported is the energy of what the select rows lose.
    const std::vector<float> coded = Decode(best.codes, best.scales, inputs, encoding);
    const WeightRowsView view{rows, inputs, outputs};
    CHECK(best.error ==
          Approx(BlockError(view, coded, select, 1) / BlockError(view, {}, select, 1)));
  }
}

TEST_CASE("after feedback, codes below 8 bits have moved to where no other gains") {
  const int64_t inputs = 128, outputs = 40;
  const std::vector<float> rows = NormalValues(inputs * outputs, 9);
  const Eigen::MatrixXd fit = GramOf(Activations(900, inputs, 10));
  const DampedCholesky damped = Decompose(fit);
  const Eigen::MatrixXd factor = FeedbackFactor(damped);
  Eigen::MatrixXd h = fit;
  h.diagonal().array() += damped.damping;
  for (const Encoding encoding : {Encoding::kInt4, Encoding::kNested4}) {
    const WeightRequest request{.weight = {rows, inputs, outputs},
                                .rule = {.encoding = encoding},
                                .width = 64,
                                .feedback = FeedbackUse::kAlways,
                                .fit = &fit,
                                .select = &fit};
    const CodedWeight coded = SearchWeight(request);
    std::vector<int8_t> moved = coded.codes;
    DescendWeights(request.weight, coded.scales, request.rule, h, 1, moved);
    CHECK(moved == coded.codes);
    CHECK(RoundWeights(request.weight, coded.scales, request.rule, &factor, 1) != coded.codes);
  }
}

TEST_CASE("without data a weight is searched by its own error") {
  const int64_t inputs = 96, outputs = 33;
  const std::vector<float> rows = NormalValues(inputs * outputs, 4);
  WeightRequest request{
      .weight = {rows, inputs, outputs}, .rule = {.encoding = Encoding::kInt4}, .width = 64};
  const CodedWeight coded = SearchWeight(request);
  CHECK_FALSE(coded.feedback);
  CHECK(coded.error < 0.95 * coded.plain_error);
}

TEST_CASE("rows of zeros, of one value and of one weight come back as they were") {
  const int64_t inputs = 35, outputs = 33;
  std::vector<float> rows(static_cast<size_t>(inputs * outputs), 0.0f);
  std::fill_n(rows.begin() + inputs, inputs, -0.25f);
  rows[static_cast<size_t>(2 * inputs + 7)] = 3;
  for (const Encoding encoding : {Encoding::kInt8, Encoding::kInt4}) {
    const CodedWeight coded = SearchWeight(
        {.weight = {rows, inputs, outputs}, .rule = {.encoding = encoding}, .width = inputs});
    const std::vector<float> found = Decode(coded.codes, coded.scales, inputs, encoding);
    for (size_t i = 0; i < rows.size(); ++i) {
      REQUIRE(found[i] == Approx(rows[i]).epsilon(0.05).margin(1e-7));
    }
  }
  const std::vector<float> zeros(static_cast<size_t>(inputs * outputs), 0.0f);
  const CodedWeight coded = SearchWeight({.weight = {zeros, inputs, outputs}, .width = inputs});
  CHECK(coded.error == 0);
  CHECK(coded.scales.base > 0);
}

TEST_CASE("operators get the scales in rows of 32 outputs, panel by panel") {
  const int64_t inputs = 130, outputs = 40;
  const std::vector<float> rows = NormalValues(inputs * outputs, 5);
  for (const int64_t width : {64l, 128l, inputs}) {
    const CodedWeight coded = SearchWeight(
        {.weight = {rows, inputs, outputs}, .rule = {.encoding = Encoding::kInt4}, .width = width});
    const QuantizedWeight weight = ToOperatorWeight(coded, inputs, outputs);
    CHECK(weight.scale_groups == (width == inputs ? 0 : width / 64));
    const int64_t per_panel = (inputs + width - 1) / width;
    REQUIRE(weight.scale_codes.size() == static_cast<size_t>(2 * per_panel * 32));
    for (int64_t n = 0; n < outputs; ++n) {
      for (int64_t k = 0; k < inputs; ++k) {
        const int64_t row = n / 32 * per_panel + k / width;
        REQUIRE(DecodeScale(weight.scale_base,
                            weight.scale_codes[static_cast<size_t>(row * 32 + n % 32)]) ==
                coded.scales.Scale(n, k));
      }
    }
  }
}

TEST_CASE("smoothing factors leave the product as it was") {
  const int64_t inputs = 48, outputs = 20;
  const std::vector<float> rows = NormalValues(inputs * outputs, 6);
  ActivationRows x = Activations(30, inputs, 7);
  x.col(5) *= 60;
  x.col(9).setZero();
  const std::vector<float> smooth = SmoothFactors(x, {rows, inputs, outputs}, 0.75);
  CHECK(smooth[9] == 1);
  for (int64_t k = 0; k < inputs; ++k) {
    if (k == 9) continue;
    float largest = 0;
    for (int64_t n = 0; n < outputs; ++n) {
      largest = std::max(largest, std::fabs(rows[static_cast<size_t>(n * inputs + k)]));
    }
    const double expected =
        std::pow(x.col(k).cwiseAbs().maxCoeff(), -0.75) * std::pow(largest, 0.25);
    CHECK(smooth[static_cast<size_t>(k)] == Approx(expected));
  }
}

TEST_CASE("inputs of very different size are smoothed, others are left alone") {
  const int64_t inputs = 64, outputs = 48;
  std::vector<float> rows = NormalValues(inputs * outputs, 8);
  for (float& w : rows) w *= 0.05f;
  const WeightRowsView weight{rows, inputs, outputs};
  ActivationRows x = Activations(120, inputs, 9);
  const RoundingRule rule{.encoding = Encoding::kInt8};
  CHECK(ChooseSmoothing(x, weight, inputs, rule).alpha == 0);
  x.col(3) *= 80;
  x.col(40) *= 50;
  const Smoothing chosen = ChooseSmoothing(x, weight, inputs, rule);
  CHECK(chosen.alpha > 0);
  const double gain = ProductError(x, weight, inputs, rule, chosen.smooth) /
                      ProductError(x, weight, inputs, rule, {});
  CHECK(gain < 0.6);
}

}  // namespace
}  // namespace sparsefuse

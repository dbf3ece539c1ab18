#include "passes/quantize/activation_ranges.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "tests/support/catch.h"
#include "tests/support/random.h"

namespace sparsefuse {
namespace {

ActivationHistogram HistogramOf(const std::vector<float>& values) {
  ActivationHistogram histogram;
  const std::span<const float> all(values);
  const size_t half = values.size() / 2;
  histogram.Measure(all.first(half));
  histogram.Measure(all.subspan(half));
  histogram.Count(all.first(half));
  histogram.Count(all.subspan(half));
  return histogram;
}

double CodingError(const std::vector<float>& values, const Range& range) {
  const ActivationCode code = CodeOf(range);
  double error = 0;
  for (float x : values) {
    const double q = std::clamp(
        std::nearbyint(static_cast<double>(x) / code.scale) + code.zero_point, 0.0, 255.0);
    error += std::pow(x - code.scale * (q - code.zero_point), 2);
  }
  return error;
}

TEST_CASE("a histogram holds every value once, zeros apart") {
  const ActivationHistogram histogram = HistogramOf({-1, 0, 0, 1, 3, 3, 0.5f});
  CHECK(histogram.min() == -1);
  CHECK(histogram.max() == 3);
  CHECK(histogram.values() == 7);
  CHECK(histogram.zeros() == 2);
  CHECK(histogram.finite());
  int64_t counted = 0;
  for (size_t i = 0; i < ActivationHistogram::kBins; ++i) {
    const int64_t count = histogram.counts()[i];
    counted += count;
    // Each value lies within half a bin of its bin's centre.
    if (count > 0) {
      const double center = histogram.Center(i);
      double nearest = INFINITY;
      for (double x : {-1.0, 1.0, 3.0, 0.5}) nearest = std::min(nearest, std::fabs(x - center));
      CHECK(nearest <= 4.0 / ActivationHistogram::kBins / 2 * 1.001);
    }
  }
  CHECK(counted == 5);
  CHECK(histogram.counts()[0] == 1);
  CHECK(histogram.counts()[ActivationHistogram::kBins - 1] == 2);
}

TEST_CASE("NaN and infinity are noticed and kept out") {
  const ActivationHistogram histogram = HistogramOf(
      {1, std::numeric_limits<float>::quiet_NaN(), 2, std::numeric_limits<float>::infinity()});
  CHECK_FALSE(histogram.finite());
  CHECK(histogram.min() == 1);
  CHECK(histogram.max() == 2);
  CHECK(histogram.values() == 2);
}

TEST_CASE("ranges always hold zero") {
  for (RangeMethod method : kRangeMethods) {
    const Range positive = ChooseRange(HistogramOf({2, 3, 4}), method);
    CHECK(positive.low == 0);
    CHECK(positive.high > 2);
    const Range negative = ChooseRange(HistogramOf({-2, -3, -4}), method);
    CHECK(negative.high == 0);
    CHECK(negative.low < -2);
    const Range zeros = ChooseRange(HistogramOf({0, 0, 0}), method);
    CHECK((zeros.low == 0 && zeros.high == 0));
  }
}

TEST_CASE("the percentile range leaves out one value in 100,000 on either side") {
  std::vector<float> values;
  for (int i = 0; i < 200000; ++i) values.push_back(static_cast<float>(i - 100000));
  std::sort(values.begin(), values.end());
  values.front() = -1e6f;  // 2 of 200,000 on either side may go
  values.back() = 1e6f;
  const Range range = ChooseRange(HistogramOf(values), RangeMethod::kPercentile);
  const float bin = 2e6f / ActivationHistogram::kBins;
  CHECK(range.low == Approx(-100000).margin(bin));
  CHECK(range.high == Approx(100000).margin(bin));
  const Range whole = ChooseRange(HistogramOf(values), RangeMethod::kMinMax);
  CHECK(whole.low == -1e6f);
  CHECK(whole.high == 1e6f);
}

TEST_CASE("exact zeros count in percentiles") {
  std::vector<float> values(300000, 0.0f);
  values.push_back(5);  // one of 300,001
  for (int i = 0; i < 1000; ++i) values.push_back(1);
  const Range range = ChooseRange(HistogramOf(values), RangeMethod::kPercentile);
  CHECK(range.low == 0);
  CHECK(range.high < 1.01f);
  CHECK(range.high > 0.9f);
}

TEST_CASE("the least-squares range beats the whole range and comes near the best of a fine grid") {
  std::vector<float> values = test::NormalValues(200000, 7);
  values.push_back(8);
  values.push_back(-8);
  const Range range = ChooseRange(HistogramOf(values), RangeMethod::kMse);
  double best = INFINITY;
  for (int i = 1; i <= 300; ++i) {
    const float share = static_cast<float>(i) / 300;
    if (share < 0.3f) continue;
    best = std::min(best, CodingError(values, {-8 * share, 8 * share}));
  }
  CHECK(CodingError(values, range) <= 1.02 * best);
  CHECK(CodingError(values, range) < 0.8 * CodingError(values, {-8, 8}));
}

TEST_CASE("codes represent zero exactly and reach both ends of the range") {
  for (const Range range :
       {Range{0, 6}, Range{-1, 3}, Range{-5, 0}, Range{-1e-3f, 1e-3f}, Range{-1e30f, 2e30f}}) {
    const ActivationCode code = CodeOf(range);
    const double step = code.scale;
    CHECK(step * (0 - code.zero_point) == Approx(range.low).margin(step));
    CHECK(step * (255 - code.zero_point) == Approx(range.high).margin(step));
    if (range.low == 0) CHECK(code.zero_point == 0);
    if (range.high == 0) CHECK(code.zero_point == 255);
  }
  CHECK(CodeOf({0, 0}).scale > 0);
  CHECK(CodeOf({0, 1e-44f}).scale > 0);
}

TEST_CASE("the union of two ranges holds both") {
  const Range range = Union({-1, 2}, {-3, 1});
  CHECK(range.low == -3);
  CHECK(range.high == 2);
}

}  // namespace
}  // namespace sparsefuse

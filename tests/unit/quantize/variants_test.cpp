#include "passes/quantize/variants.h"

#include "tests/support/catch.h"

namespace sparsefuse {
namespace {

VariantTiming Timing(std::vector<double> ratios, double mean) { return {"v", ratios, mean}; }

TEST_CASE("the fastest variant wins") {
  const std::vector<VariantTiming> timings = {Timing({1.2, 1.2}, 1.2), Timing({1.5, 1.5}, 1.5),
                                              Timing({1.4, 1.4}, 1.4)};
  CHECK(ChooseVariant(timings, std::vector<uint64_t>{1, 2, 3}) == std::optional<size_t>(1));
}

TEST_CASE("of variants within three per cent the smallest wins") {
  const std::vector<VariantTiming> timings = {Timing({1.47, 1.47}, 1.47), Timing({1.5, 1.5}, 1.5),
                                              Timing({1.3, 1.3}, 1.3)};
  CHECK(ChooseVariant(timings, std::vector<uint64_t>{10, 20, 1}) == std::optional<size_t>(0));
  CHECK(ChooseVariant(timings, std::vector<uint64_t>{20, 10, 1}) == std::optional<size_t>(1));
  CHECK(ChooseVariant(timings, std::vector<uint64_t>{10, 10, 1}) == std::optional<size_t>(1));
}

TEST_CASE("a variant that is slower at any batch size is not used") {
  const std::vector<VariantTiming> timings = {Timing({0.9, 2.0}, 1.34), Timing({1.1, 1.1}, 1.1)};
  CHECK(ChooseVariant(timings, std::vector<uint64_t>{1, 2}) == std::optional<size_t>(1));
}

TEST_CASE("without a gain the baseline stays") {
  const std::vector<VariantTiming> timings = {Timing({1.02, 1.02}, 1.02), Timing({0.7, 0.8}, 0.75)};
  CHECK_FALSE(ChooseVariant(timings, std::vector<uint64_t>{1, 2}));
  CHECK_FALSE(ChooseVariant({}, {}));
}

TEST_CASE("noise of two per cent is no loss") {
  const std::vector<VariantTiming> timings = {Timing({0.985, 1.3}, 1.13)};
  CHECK(ChooseVariant(timings, std::vector<uint64_t>{1}) == std::optional<size_t>(0));
}

}  // namespace
}  // namespace sparsefuse

#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <string>

#include "kernels/base/cpu_features.h"
#include "kernels/base/float16.h"
#include "tests/support/catch.h"

namespace sparsefuse {
namespace {

// A float16 by its definition; NaN for exponent 31 with a fraction.
double Half(uint16_t bits) {
  const int exponent = bits >> 10 & 31, fraction = bits & 1023;
  const double sign = bits & 0x8000 ? -1 : 1;
  if (exponent == 31) return fraction ? std::nan("") : sign * INFINITY;
  if (exponent == 0) return sign * std::ldexp(fraction, -24);
  return sign * std::ldexp(1024 + fraction, exponent - 25);
}

TEST_CASE("every float16 widens to its value and narrows back") {
  for (uint32_t i = 0; i < 65536; ++i) {
    const auto half = static_cast<uint16_t>(i);
    const float wide = Float16ToFloat(half);
    if (std::isnan(Half(half))) {
      REQUIRE(std::isnan(wide));
      REQUIRE(std::isnan(Float16ToFloat(FloatToFloat16(wide))));
      REQUIRE((FloatToFloat16(wide) & 0x8000) == (half & 0x8000));
    } else {
      REQUIRE(static_cast<double>(wide) == Half(half));
      REQUIRE(std::signbit(wide) == ((half & 0x8000) != 0));
      REQUIRE(FloatToFloat16(wide) == half);
    }
  }
}

TEST_CASE("float to float16 takes the nearest, ties to even") {
  // Each neighbouring pair, with its middle and the floats beside it.
  for (uint32_t i = 0; i < 0x7bff; ++i) {
    const auto low = static_cast<uint16_t>(i), high = static_cast<uint16_t>(i + 1);
    const auto middle = static_cast<float>((Half(low) + Half(high)) / 2);
    REQUIRE(FloatToFloat16(middle) == (i % 2 == 0 ? low : high));
    REQUIRE(FloatToFloat16(std::nextafter(middle, 0.0f)) == low);
    REQUIRE(FloatToFloat16(std::nextafter(middle, 1e9f)) == high);
    REQUIRE(FloatToFloat16(-middle) == (FloatToFloat16(middle) | 0x8000));
  }
  REQUIRE(FloatToFloat16(65519.996f) == 0x7bff);
  REQUIRE(FloatToFloat16(65520.0f) == 0x7c00);
  REQUIRE(FloatToFloat16(std::numeric_limits<float>::max()) == 0x7c00);
  REQUIRE(FloatToFloat16(-INFINITY) == 0xfc00);
  REQUIRE(FloatToFloat16(0x1p-25f) == 0);
  REQUIRE(FloatToFloat16(std::nextafter(0x1p-25f, 1.0f)) == 1);
  REQUIRE(FloatToFloat16(std::numeric_limits<float>::denorm_min()) == 0);
}

TEST_CASE("bfloat16 is the upper half of a float, rounded to even") {
  std::mt19937 random(3);
  for (int i = 0; i < 100000; ++i) {
    const auto bits = static_cast<uint32_t>(random());
    const float value = std::bit_cast<float>(bits);
    const uint16_t brain = FloatToBfloat16(value);
    if (std::isnan(value)) {
      REQUIRE(std::isnan(Bfloat16ToFloat(brain)));
      continue;
    }
    const uint32_t below = bits >> 16, rest = bits & 0xffff;
    const bool up = rest > 0x8000 || (rest == 0x8000 && below % 2 == 1);
    REQUIRE(brain == below + (up ? 1 : 0));
  }
  REQUIRE(FloatToBfloat16(std::numeric_limits<float>::max()) == 0x7f80);
  REQUIRE(std::isnan(Bfloat16ToFloat(FloatToBfloat16(std::bit_cast<float>(0x7f800001u)))));
}

TEST_CASE("CPU features are described by name and cut to the buffer") {
  constexpr CpuFeatures some = {CpuFeature::kAvx2, CpuFeature::kAvx512vnni, CpuFeature::kAmxInt8};
  std::array<char, 64> text;
  DescribeCpuFeatures(some, text);
  REQUIRE(std::string(text.data()) == "avx2 avx512vnni amx-int8");
  DescribeCpuFeatures({}, text);
  REQUIRE(std::string(text.data()) == "none");
  std::array<char, 8> small;
  DescribeCpuFeatures(some, small);
  REQUIRE(std::string(small.data()) == "avx2 av");
  REQUIRE(some.Contains({CpuFeature::kAvx2}));
  REQUIRE_FALSE(CpuFeatures{CpuFeature::kAvx2}.Contains(some));
  REQUIRE(some.Without({CpuFeature::kAvx2, CpuFeature::kAvx512vnni, CpuFeature::kAmxInt8}).empty());
}

}  // namespace
}  // namespace sparsefuse

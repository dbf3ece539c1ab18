#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "kernels/linear/pack.h"
#include "tests/support/catch.h"

namespace sparsefuse {
namespace {

TEST_CASE("layout 1 puts each code where the format says and pads with zeros") {
  std::mt19937 random(1);
  for (int64_t inputs : {1, 3, 63, 64, 65, 130}) {
    for (int64_t outputs : {1, 31, 32, 33, 70}) {
      std::vector<int8_t> codes(static_cast<size_t>(inputs * outputs));
      for (int8_t& c : codes) c = static_cast<int8_t>(random() % 254 + 1 - 127);  // rarely 0
      const int64_t groups = GroupsPerPanel(inputs), panels = PanelCount(outputs);
      std::vector<std::byte> packed(static_cast<size_t>(panels * groups * 2048), std::byte{99});
      PackWeights(Encoding::kInt8, {}, codes, inputs, outputs, packed);
      for (size_t i = 0; i < packed.size(); ++i) {
        // i = ((panel·groups + group)·32 + r)·64 + 4·q + k
        const auto byte = static_cast<int64_t>(i);
        const int64_t input = byte % 64 + byte / 2048 % groups * 64;
        const int64_t output = byte / 64 % 32 + byte / 2048 / groups * 32;
        const bool padding = input >= inputs || output >= outputs;
        REQUIRE(static_cast<int8_t>(packed[i]) ==
                (padding ? 0 : codes[static_cast<size_t>(output * inputs + input)]));
      }
      std::vector<int8_t> back(codes.size(), 99);
      UnpackWeights(Encoding::kInt8, {}, packed, inputs, outputs, back);
      REQUIRE(back == codes);
    }
  }
}

TEST_CASE("decoded scales are base · 2^(code/16)") {
  for (float base : {1e-30f, 1e-3f, 1.0f, 77.0f}) {
    for (int code = 0; code < 256; ++code) {
      const double exact = static_cast<double>(base) * std::exp2(code / 16.0);
      REQUIRE(std::fabs(DecodeScale(base, static_cast<uint8_t>(code)) - exact) <= exact * 0x1p-23);
    }
  }
}

TEST_CASE("encoded scales never shrink and grow by less than 1/16 of an octave") {
  std::mt19937 random(2);
  std::uniform_real_distribution<float> exponent(-15.9f, 0);
  for (float largest : {1e-37f, 1e-20f, 0.01f, 1.0f, 1e30f, 2.6e36f}) {
    std::vector<float> scales(500);
    for (float& s : scales) s = largest * std::exp2(exponent(random));
    scales[7] = largest;
    scales[8] = 0;
    std::vector<uint8_t> codes(scales.size(), 77);
    // What decodes exactly, and just above it.
    const float first_base = EncodeScales(scales, codes);
    for (int code = 0; code < 255; ++code) {
      const float exact = DecodeScale(first_base, static_cast<uint8_t>(code));
      scales.push_back(exact);
      scales.push_back(std::nextafter(exact, largest));
    }
    codes.resize(scales.size());
    const float base = EncodeScales(scales, codes);
    REQUIRE(base >= std::numeric_limits<float>::min());
    for (size_t i = 0; i < scales.size(); ++i) {
      const float decoded = DecodeScale(base, codes[i]);
      REQUIRE(decoded >= scales[i]);
      if (scales[i] > base) REQUIRE(decoded <= scales[i] * std::exp2(1.0 / 16) * (1 + 0x1p-22));
    }
    REQUIRE(codes[8] == 0);
    if (largest > 1e-30f) REQUIRE(codes[7] == 255);
  }
}

TEST_CASE("scales decode to what was encoded: codes survive another round") {
  std::vector<float> scales(256);
  for (int i = 0; i < 256; ++i)
    scales[static_cast<size_t>(i)] = DecodeScale(1e-3f, static_cast<uint8_t>(i));
  std::vector<uint8_t> codes(256);
  const float base = EncodeScales(scales, codes);
  REQUIRE(base == Approx(1e-3f).epsilon(1e-6));
  for (int i = 1; i < 256; ++i) REQUIRE(std::abs(codes[static_cast<size_t>(i)] - i) <= 1);
}

TEST_CASE("scales of nothing and of zeros") {
  std::vector<uint8_t> codes(3, 9);
  REQUIRE(EncodeScales({}, {}) == std::numeric_limits<float>::min());
  const std::vector<float> zeros(3);
  REQUIRE(EncodeScales(zeros, codes) == std::numeric_limits<float>::min());
  REQUIRE(codes == std::vector<uint8_t>{0, 0, 0});
}

}  // namespace
}  // namespace sparsefuse

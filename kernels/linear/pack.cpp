#include "kernels/linear/pack.h"

#include <algorithm>
#include <array>
#include <cassert>
#include <cmath>
#include <cstring>
#include <limits>

namespace sparsefuse {
namespace {

// 2^(i/16), rounded to float.
constexpr std::array<float, 16> kRoots = {
    0x1p+0f,        0x1.0b5586p+0f, 0x1.172b84p+0f, 0x1.2387a6p+0f, 0x1.306fep+0f,  0x1.3dea64p+0f,
    0x1.4bfdaep+0f, 0x1.5ab07ep+0f, 0x1.6a09e6p+0f, 0x1.7a1148p+0f, 0x1.8ace54p+0f, 0x1.9c4918p+0f,
    0x1.ae89fap+0f, 0x1.c199bep+0f, 0x1.d5818ep+0f, 0x1.ea4afap+0f};

uint8_t EncodeScale(float base, float scale) noexcept {
  if (!(scale > base)) return 0;
  const double exact = std::ceil(16.0 * std::log2(static_cast<double>(scale) / base));
  int code = static_cast<int>(std::clamp(exact, 0.0, 255.0));
  // The logarithm and the decoder round, so the neighbours decide.
  while (code > 0 && DecodeScale(base, static_cast<uint8_t>(code - 1)) >= scale) --code;
  while (code < 255 && DecodeScale(base, static_cast<uint8_t>(code)) < scale) ++code;
  return static_cast<uint8_t>(code);
}

}  // namespace

void PackDense8(std::span<const int8_t> codes, int64_t inputs, int64_t outputs,
                std::span<int8_t> packed) noexcept {
  const int64_t groups = GroupsPerPanel(inputs);
  assert(static_cast<int64_t>(codes.size()) == inputs * outputs);
  assert(static_cast<int64_t>(packed.size()) == PanelCount(outputs) * groups * kGroupBytes8);
  std::fill(packed.begin(), packed.end(), int8_t{0});
  // In a group the 64 inputs of one output lie together.
  for (int64_t n = 0; n < outputs; ++n) {
    for (int64_t g = 0; g < groups; ++g) {
      const int64_t group = n / kPanelOutputs * groups + g;
      const int64_t first = g * kGroupInputs;
      std::memcpy(&packed[group * kGroupBytes8 + n % kPanelOutputs * kGroupInputs],
                  &codes[n * inputs + first], std::min(kGroupInputs, inputs - first));
    }
  }
}

void UnpackDense8(std::span<const int8_t> packed, int64_t inputs, int64_t outputs,
                  std::span<int8_t> codes) noexcept {
  const int64_t groups = GroupsPerPanel(inputs);
  assert(static_cast<int64_t>(codes.size()) == inputs * outputs);
  assert(static_cast<int64_t>(packed.size()) == PanelCount(outputs) * groups * kGroupBytes8);
  for (int64_t n = 0; n < outputs; ++n) {
    for (int64_t g = 0; g < groups; ++g) {
      const int64_t group = n / kPanelOutputs * groups + g;
      const int64_t first = g * kGroupInputs;
      std::memcpy(&codes[n * inputs + first],
                  &packed[group * kGroupBytes8 + n % kPanelOutputs * kGroupInputs],
                  std::min(kGroupInputs, inputs - first));
    }
  }
}

float EncodeScales(std::span<const float> scales, std::span<uint8_t> codes) noexcept {
  assert(scales.size() == codes.size());
  const float largest = scales.empty() ? 0.0f : *std::max_element(scales.begin(), scales.end());
  const double wanted = static_cast<double>(largest) * std::exp2(-255.0 / 16.0);
  float base = std::max(static_cast<float>(wanted), std::numeric_limits<float>::min());
  while (DecodeScale(base, 255) < largest) {
    base = std::nextafter(base, std::numeric_limits<float>::infinity());
  }
  for (size_t i = 0; i < scales.size(); ++i) codes[i] = EncodeScale(base, scales[i]);
  return base;
}

float DecodeScale(float base, uint8_t code) noexcept {
  return base * kRoots[code & 15] * static_cast<float>(1 << (code >> 4));
}

}  // namespace sparsefuse

#include "kernels/linear/pack.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <cstdio>
#include <limits>

namespace sparsefuse {
namespace {

uint8_t EncodeScale(float base, float scale) noexcept {
  if (!(scale > base)) return 0;
  const double exact = std::ceil(16.0 * std::log2(static_cast<double>(scale) / base));
  int code = static_cast<int>(std::clamp(exact, 0.0, 255.0));
  // The logarithm and the decoder round, so the neighbours decide.
  while (code > 0 && DecodeScale(base, static_cast<uint8_t>(code - 1)) >= scale) --code;
  while (code < 255 && DecodeScale(base, static_cast<uint8_t>(code)) < scale) ++code;
  return static_cast<uint8_t>(code);
}

// Where a weight is stored.
struct Place {
  int64_t n, k;
  int64_t byte;  // of its (high) plane
  int shift;     // 4 for a high nibble
};

// Calls visit(Place) for every stored weight of a real output and input.
template <typename Visit>
void ForEachWeight(Encoding encoding, const BlockIndex& blocks, int64_t inputs, int64_t outputs,
                   const Visit& visit) noexcept {
  const int64_t group_bytes = PlaneBytes(encoding);
  for (int64_t panel = 0; panel < PanelCount(outputs); ++panel) {
    const int64_t dense = GroupsPerPanel(inputs);
    const int64_t first = blocks.dense() ? panel * dense : blocks.group_ptr[panel];
    const int64_t last = blocks.dense() ? first + dense : blocks.group_ptr[panel + 1];
    const int64_t lanes = std::min(kPanelOutputs, outputs - panel * kPanelOutputs);
    for (int64_t slot = first * kGroupQuads; slot < last * kGroupQuads; ++slot) {
      const int64_t quad = blocks.dense() ? slot - first * kGroupQuads : blocks.quad[slot];
      const int64_t byte = slot / kGroupQuads * group_bytes + slot % kGroupQuads * 4;
      const int64_t count = std::min<int64_t>(4, inputs - 4 * quad);  // ≤ 0 in padding
      for (int64_t r = 0; r < lanes; ++r) {
        const bool upper = encoding != Encoding::kInt8 && r >= 16;
        for (int64_t k = 0; k < count; ++k) {
          visit(Place{panel * kPanelOutputs + r, 4 * quad + k,
                      byte + (upper ? r - 16 : r) * kGroupInputs + k, upper ? 4 : 0});
        }
      }
    }
  }
}

}  // namespace

void PackWeights(Encoding encoding, const BlockIndex& blocks, std::span<const int8_t> codes,
                 int64_t inputs, int64_t outputs, std::span<std::byte> packed) noexcept {
  std::fill(packed.begin(), packed.end(), std::byte{0});
  const auto plane = static_cast<int64_t>(packed.size()) / (IsNested(encoding) ? 2 : 1);
  ForEachWeight(encoding, blocks, inputs, outputs, [&](const Place& place) {
    const auto code = static_cast<uint8_t>(codes[static_cast<size_t>(place.n * inputs + place.k)]);
    std::byte* byte = &packed[static_cast<size_t>(place.byte)];
    if (encoding == Encoding::kInt8) {
      *byte = std::byte{code};
    } else if (encoding == Encoding::kInt4) {
      *byte |= std::byte{static_cast<uint8_t>(code & 15)} << place.shift;
    } else {
      *byte |= std::byte{static_cast<uint8_t>(code >> 4)} << place.shift;
      byte[plane] |= std::byte{static_cast<uint8_t>(code & 15)} << place.shift;
    }
  });
}

void UnpackWeights(Encoding encoding, const BlockIndex& blocks, std::span<const std::byte> packed,
                   int64_t inputs, int64_t outputs, std::span<int8_t> codes) noexcept {
  std::fill(codes.begin(), codes.end(), int8_t{0});
  const auto plane = static_cast<int64_t>(packed.size()) / (IsNested(encoding) ? 2 : 1);
  ForEachWeight(encoding, blocks, inputs, outputs, [&](const Place& place) {
    const std::byte* byte = &packed[static_cast<size_t>(place.byte)];
    int8_t& code = codes[static_cast<size_t>(place.n * inputs + place.k)];
    if (encoding == Encoding::kInt8) {
      code = static_cast<int8_t>(*byte);
      return;
    }
    const int high = static_cast<int>(*byte >> place.shift) & 15;
    if (encoding == Encoding::kInt4) {
      code = static_cast<int8_t>((high ^ 8) - 8);
    } else {
      const int low = static_cast<int>(byte[plane] >> place.shift) & 15;
      code = static_cast<int8_t>(high << 4 | low);
    }
  });
}

bool CheckBlocks(const BlockIndex& blocks, int64_t inputs, int64_t outputs, int64_t groups,
                 std::span<char> text) noexcept {
  const auto say = [text](const char* what, int64_t i, int64_t value) {
    if (!text.empty()) {
      std::snprintf(text.data(), text.size(), "%s [%lld] is %lld", what, static_cast<long long>(i),
                    static_cast<long long>(value));
    }
    return false;
  };
  const int64_t panels = PanelCount(outputs), padding = QuadCount(inputs);
  const int32_t* ptr = blocks.group_ptr;
  if (ptr[0] != 0) return say("group_ptr does not start at 0:", 0, ptr[0]);
  for (int64_t p = 0; p < panels; ++p) {
    if (ptr[p + 1] < ptr[p]) return say("group_ptr falls:", p + 1, ptr[p + 1]);
  }
  if (ptr[panels] != groups)
    return say("group_ptr does not end at the groups:", panels, ptr[panels]);
  for (int64_t p = 0; p < panels; ++p) {
    const int64_t first = ptr[p] * kGroupQuads, last = ptr[p + 1] * kGroupQuads;
    for (int64_t i = first; i < last; ++i) {
      if (blocks.quad[i] > padding) return say("quad beyond the inputs:", i, blocks.quad[i]);
      const bool pads = blocks.quad[i] == padding;
      if (pads && i % kGroupQuads == 0) return say("a group of padding only: quad", i, padding);
      if (pads && i < last - kGroupQuads) return say("padding inside a panel: quad", i, padding);
      if (i > first &&
          (pads ? blocks.quad[i] < blocks.quad[i - 1] : blocks.quad[i] <= blocks.quad[i - 1])) {
        return say("quads of a panel do not ascend:", i, blocks.quad[i]);
      }
    }
  }
  return true;
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
  return base * kScaleRoots.root[code & 15] * static_cast<float>(1 << (code >> 4));
}

}  // namespace sparsefuse

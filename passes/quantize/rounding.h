// One weight, one code: how weights are rounded to what an encoding can say, in units of the scale.
//
// Nested codes are read in two ways, so they round two numbers at once: w8, which the 8-bit reading
// should give, and w4, which the 4-bit reading should give (one number, until error feedback moves
// them apart). Of all 256 codes they take one with the least
//   (1 − λ)·(w4 − read4)² + λ·(w8 − read8)²

#ifndef SPARSEFUSE_PASSES_QUANTIZE_ROUNDING_H_
#define SPARSEFUSE_PASSES_QUANTIZE_ROUNDING_H_

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <span>

#include "kernels/linear/pack.h"

namespace sparsefuse {

// NaN and ±∞ have no code.
inline bool AllFinite(std::span<const float> values) {
  return std::all_of(values.begin(), values.end(), [](float v) { return std::isfinite(v); });
}

// Whether the codes must be exact under `vpmaddubsw`, which adds two products of an unsigned and a
// signed byte in 16 bits: then codes 2j and 2j+1 of a row with the same sign have |a| + |b| ≤ 128,
// since 255·128 < 2¹⁵. ONNX Runtime uses that instruction on CPUs without VNNI. Only int8 and
// Nested1 have codes that large.
enum class PairBound { kNone, kAvx2 };
inline constexpr int kMostOfPair = 128;

struct RoundingRule {
  Encoding encoding = Encoding::kInt8;
  PairBound bound = PairBound::kNone;
  double share8 = 0.5;  // λ, of nested encodings; in [0, 1]

  constexpr bool IsBounded() const noexcept {
    return bound == PairBound::kAvx2 &&
           (encoding == Encoding::kInt8 || encoding == Encoding::kNested1);
  }
};

// The largest magnitude, in units of the scale, that a reading gives without clipping. A row's
// absmax scale is its largest magnitude over this.
constexpr double LargestReading(Encoding encoding) noexcept {
  switch (encoding) {
    case Encoding::kInt8:
      return 127;
    case Encoding::kInt4:
      return 7;
    case Encoding::kNested1:
      return 120;
    case Encoding::kNested4:
      return 28;
  }
  return 1;
}

// Round half to even, |x| < 2⁵¹; a library call costs several times as much.
inline double RoundHalfEven(double x) noexcept {
  constexpr double kMagic = 6755399441055744.0;  // 1.5·2⁵²
  return (x + kMagic) - kMagic;
}

// The code of a nested encoding for w8 and w4, with |8-bit reading| ≤ `most` (≥ 0).
// `errors`: unless null, what the two readings miss by, w8's first.
inline int8_t RoundNested(const RoundingRule& rule, double w8, double w4, int most,
                          double* errors = nullptr) noexcept {
  const bool overlapping = rule.encoding == Encoding::kNested4;
  const int step = overlapping ? 4 : 16;  // of the high part
  const int shift = overlapping ? 0 : 8;  // of the 4-bit reading
  const int low_first = overlapping ? -8 : 0, low_last = overlapping ? 7 : 15;
  // Farther away from both, both errors only grow.
  const double near4 = RoundHalfEven((w4 - shift) / step);
  const double near8 = RoundHalfEven(std::clamp<double>(w8, -most, most) / step);
  const int first = static_cast<int>(std::clamp(std::min(near4, near8) - 2, -8.0, 7.0));
  const int last = static_cast<int>(std::clamp(std::max(near4, near8) + 2, -8.0, 7.0));
  double least = INFINITY, best8 = 0, best4 = 0;
  int best_high = 0, best_low = 0;
  for (int high = first; high <= last; ++high) {
    const int low_min = std::max(low_first, -most - step * high);
    const int low_max = std::min(low_last, most - step * high);
    if (low_min > low_max) continue;
    const double wanted = std::clamp(w8 - step * high, -1000.0, 1000.0);
    const int low = std::clamp(static_cast<int>(RoundHalfEven(wanted)), low_min, low_max);
    const double miss8 = w8 - (step * high + low), miss4 = w4 - (step * high + shift);
    const double error = (1 - rule.share8) * miss4 * miss4 + rule.share8 * miss8 * miss8;
    if (error < least) {
      least = error;
      best_high = high;
      best_low = low;
      best8 = miss8;
      best4 = miss4;
    }
  }
  if (errors) {
    errors[0] = least < INFINITY ? best8 : w8;
    errors[1] = least < INFINITY ? best4 : w4 - shift;
  }
  return static_cast<int8_t>(static_cast<uint8_t>(best_high * 16 + (best_low & 15)));
}

// The code of a plain encoding, with |code| ≤ `most`.
inline int8_t RoundPlain(const RoundingRule& rule, double w, int most) noexcept {
  const double lowest = rule.encoding == Encoding::kInt8 ? -127 : -8;
  const double highest = rule.encoding == Encoding::kInt8 ? 127 : 7;
  return static_cast<int8_t>(RoundHalfEven(
      std::clamp(w, std::max<double>(lowest, -most), std::min<double>(highest, most))));
}

}  // namespace sparsefuse

#endif  // SPARSEFUSE_PASSES_QUANTIZE_ROUNDING_H_

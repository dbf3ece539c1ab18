// Stored weights as vectors of signed bytes. Over the operations of an instruction set, as
// kmajor_tile.h says.

#ifndef SPARSEFUSE_KERNELS_LINEAR_WEIGHTS_TILE_H_
#define SPARSEFUSE_KERNELS_LINEAR_WEIGHTS_TILE_H_

#include <cstddef>
#include <cstdint>

#include "kernels/linear/job.h"

namespace sparsefuse {

// How stored weights are read.
enum class Reading : uint8_t { kInt8, kInt4, kNested1, kNested1High, kNested4, kNested4High };

template <class Ops>
struct WeightsTile {
  using Int = typename Ops::Int;

  static constexpr int64_t kLanes = Ops::kLanes;

  // Low nibbles belong to the first vector of weights, high nibbles to the second.
  static Int LowNibbles(Int v) { return Ops::And(v, Ops::BroadcastByte(0x0f)); }
  static Int HighNibbles(Int v) { return LowNibbles(Ops::ShiftRight4(v)); }
  static Int LowTimes16(Int v) { return Ops::And(Ops::ShiftLeft4(v), Ops::BroadcastByte(0xf0)); }
  static Int HighTimes16(Int v) { return Ops::And(v, Ops::BroadcastByte(0xf0)); }

  // Signed nibble → 4 × it, → itself.
  static Int Times4(Int nibbles) {
    alignas(16) static constexpr int8_t kTable[16] = {0,   4,   8,   12,  16,  20,  24, 28,
                                                      -32, -28, -24, -20, -16, -12, -8, -4};
    return Ops::Lookup(kTable, nibbles);
  }
  static Int Signed(Int nibbles) {
    alignas(16) static constexpr int8_t kTable[16] = {0,  1,  2,  3,  4,  5,  6,  7,
                                                      -8, -7, -6, -5, -4, -3, -2, -1};
    return Ops::Lookup(kTable, nibbles);
  }

  // Two vectors of weights as signed bytes. `high` and `low`: one vector of each plane, or two of
  // int8 weights.
  template <Reading reading>
  static void Load(const std::byte* high, const std::byte* low, Int (&w)[2]) {
    const Int h = Ops::LoadBytes(high);
    if constexpr (reading == Reading::kInt8) {
      w[0] = h;
      w[1] = Ops::LoadBytes(high + 4 * kLanes);
    } else if constexpr (reading == Reading::kInt4) {
      w[0] = Signed(LowNibbles(h));
      w[1] = Signed(HighNibbles(h));
    } else if constexpr (reading == Reading::kNested1) {
      const Int l = Ops::LoadBytes(low);
      w[0] = Ops::Or(LowTimes16(h), LowNibbles(l));
      w[1] = Ops::Or(HighTimes16(h), HighNibbles(l));
    } else if constexpr (reading == Reading::kNested1High) {
      w[0] = Ops::Or(LowTimes16(h), Ops::BroadcastByte(8));
      w[1] = Ops::Or(HighTimes16(h), Ops::BroadcastByte(8));
    } else if constexpr (reading == Reading::kNested4) {
      const Int l = Ops::LoadBytes(low);
      w[0] = Ops::AddBytes(Times4(LowNibbles(h)), Signed(LowNibbles(l)));
      w[1] = Ops::AddBytes(Times4(HighNibbles(h)), Signed(HighNibbles(l)));
    } else {
      w[0] = Times4(LowNibbles(h));
      w[1] = Times4(HighNibbles(h));
    }
  }

  // Calls multiply.operator()<encoding, reading, reading of easy rows>().
  template <typename F>
  static void ForEncoding(Encoding encoding, const F& multiply) {
    using enum Encoding;
    switch (encoding) {
      case kInt8:
        return multiply.template operator()<kInt8, Reading::kInt8, Reading::kInt8>();
      case kInt4:
        return multiply.template operator()<kInt4, Reading::kInt4, Reading::kInt4>();
      case kNested1:
        return multiply.template operator()<kNested1, Reading::kNested1, Reading::kNested1High>();
      case kNested4:
        return multiply.template operator()<kNested4, Reading::kNested4, Reading::kNested4High>();
    }
  }
};

}  // namespace sparsefuse

#endif  // SPARSEFUSE_KERNELS_LINEAR_WEIGHTS_TILE_H_

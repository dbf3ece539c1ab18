// Arithmetic on activations as unsigned bytes a + 128:
//   Σ a·b = Σ (a + 128)·b − 128·Σ b
// where the second sum belongs to the column. |Σ (a + 128)·b| ≤ 255·128·65,536 < 2³¹. Over the
// vector operations of an instruction set, which derives from this. As kmajor_tile.h: templates on
// the instruction set only.

#ifndef SPARSEFUSE_KERNELS_LINEAR_OFFSET_CODES_H_
#define SPARSEFUSE_KERNELS_LINEAR_OFFSET_CODES_H_

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "kernels/linear/kmajor_tile.h"

namespace sparsefuse {

template <class Ops>
struct OffsetCodes {
  static constexpr int64_t kQuadBytes = 4;
  static constexpr int64_t kColumnFactor = 128;
  static constexpr bool kRowSurplus = false;
  static constexpr int64_t kSurplusBytes = 0;

  // All quads of a chunk to out, out + stride, …
  template <class Int>
  static Int StoreCodes(const Int (&codes)[2], std::byte* out, int64_t stride, Int unused) {
    std::byte bytes[2 * Ops::kLanes];
    Ops::StoreOffsetBytes(codes, bytes);
    SPARSEFUSE_UNROLL
    for (int quad = 0; quad < Ops::kLanes / 2; ++quad) {
      memcpy(out + quad * stride, bytes + quad * 4, 4);
    }
    return unused;
  }

  static auto BroadcastQuad(const std::byte* codes) {
    int32_t quad;
    memcpy(&quad, codes, sizeof quad);
    return Ops::BroadcastInt(quad);
  }

  template <int R, class Int>
  static void AddQuad(const std::byte* codes, const Int (&w)[2], Int (&sum)[R][2]) {
    SPARSEFUSE_UNROLL
    for (int r = 0; r < R; ++r) {
      const Int a = BroadcastQuad(codes + r * kQuadBytes);
      SPARSEFUSE_UNROLL
      for (int v = 0; v < 2; ++v) sum[r][v] = Ops::DotBytes(sum[r][v], a, w[v]);
    }
  }
};

}  // namespace sparsefuse

#endif  // SPARSEFUSE_KERNELS_LINEAR_OFFSET_CODES_H_

// The byte order and the inner loop of unsigned × signed dot products of four bytes (vpdpbusd),
// over the vector operations of an instruction set, which derives from this. As kmajor_tile.h:
// templates on the instruction set only.

#ifndef SPARSEFUSE_KERNELS_LINEAR_VNNI_H_
#define SPARSEFUSE_KERNELS_LINEAR_VNNI_H_

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "kernels/linear/kmajor_tile.h"

namespace sparsefuse {

template <class Ops>
struct VnniLayout {
  static constexpr int64_t kLanes = 16;
  static constexpr int kTileRows = 12;  // 24 sums, 2 weight vectors, 1 broadcast of 32 registers
  static constexpr int64_t kQuadBytes = 4;  // a + 128
  // vpdpbusd takes 5 cycles: one or two rows alone would wait for it.
  template <int R>
  static constexpr int kChains = R == 1   ? 4
                                 : R == 2 ? 2
                                          : 1;
  static constexpr bool kRowSurplus = false;

  // Eight quads of codes to out, out + stride, …
  template <class Int>
  static Int StoreCodes(const Int (&codes)[2], std::byte* out, int64_t stride, Int unused) {
    std::byte bytes[2 * kLanes];
    for (int i = 0; i < 2; ++i) {
      Ops::NarrowToBytes(Ops::Add(codes[i], Ops::BroadcastInt(128)), bytes + i * kLanes);
    }
    SPARSEFUSE_UNROLL
    for (int quad = 0; quad < 8; ++quad) memcpy(out + quad * stride, bytes + quad * 4, 4);
    return unused;
  }
  template <class Int>
  static int32_t ReduceSurplus(Int) {
    return 0;
  }
  static int64_t ColumnSurplus(const int8_t* b) {  // of one output's 64 inputs
    int64_t sum = 0;
    for (int64_t k = 0; k < kGroupInputs; ++k) sum += b[k];
    return 128 * sum;
  }
  template <int R, class Int>
  static void AddQuad(const std::byte* codes, const std::byte* weight, Int (&sum)[R][2]) {
    const Int w[2] = {Ops::LoadBytes(weight), Ops::LoadBytes(weight + 64)};
    SPARSEFUSE_UNROLL
    for (int r = 0; r < R; ++r) {
      int32_t quad;
      memcpy(&quad, codes + r * kQuadBytes, sizeof quad);
      const Int a = Ops::BroadcastInt(quad);
      SPARSEFUSE_UNROLL
      for (int v = 0; v < 2; ++v) sum[r][v] = Ops::DotBytes(sum[r][v], a, w[v]);
    }
  }
};

}  // namespace sparsefuse

#endif  // SPARSEFUSE_KERNELS_LINEAR_VNNI_H_

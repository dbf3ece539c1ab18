// AVX2. vpmaddubsw cannot hold the sum of two products of 8-bit codes, so products are made of
// 16-bit numbers, and half of them are saved by Winograd's identity for inner products (1968): with
// activations a and weights b,
//   a0·b0 + a1·b1 = (a0 + b1)·(a1 + b0) − a0·a1 − b0·b1
// where Σ a0·a1 belongs to the row and Σ b0·b1 to the column. Per 32 products: two 16-bit
// additions, one vpmaddwd, one 32-bit addition, of which only vpmaddwd is confined to the
// multipliers; vpmaddwd alone would need two of them. Exact: |a|, |b| ≤ 128, so |a + b| ≤ 256, and
// what wraps around modulo 2³² wraps back.

#if defined(__x86_64__)

#include <immintrin.h>

#include "kernels/linear/kernels.h"
#include "kernels/linear/kmajor_tile.h"

namespace sparsefuse {
namespace {

struct Avx2 {
  using Float = __m256;
  using Int = __m256i;

  static constexpr int64_t kLanes = 8;
  static constexpr int kTileRows = 4;  // 8 sums, 4 weight vectors, 4 temporaries: all 16 registers
  static constexpr int64_t kQuadBytes = 8;  // 16-bit a0, a2, a1, a3
  static constexpr int64_t kStripBytes =
      64;  // twice: (b0, b2) of 8 outputs, (b1, b3) of the same 8
  template <int R>
  static constexpr int kChains = 1;
  static constexpr bool kRowSurplus = true;

  static Float Load(const float* p) { return _mm256_loadu_ps(p); }
  static Int LoadInt(const int32_t* p) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  }
  static void Store(float* p, Float v) { _mm256_storeu_ps(p, v); }
  static Float Broadcast(float v) { return _mm256_set1_ps(v); }
  static Int Zero() { return _mm256_setzero_si256(); }
  static Float Multiply(Float a, Float b) { return _mm256_mul_ps(a, b); }
  static Float Divide(Float a, Float b) { return _mm256_div_ps(a, b); }
  static Float AddFloat(Float a, Float b) { return _mm256_add_ps(a, b); }
  static Float MultiplyAdd(Float a, Float b, Float c) { return _mm256_fmadd_ps(a, b, c); }
  static Int Add(Int a, Int b) { return _mm256_add_epi32(a, b); }
  static Int Subtract(Int a, int32_t b) { return _mm256_sub_epi32(a, _mm256_set1_epi32(b)); }
  static Int Round(Float v) { return _mm256_cvtps_epi32(v); }  // to nearest, ties to even
  static Float ToFloat(Int v) { return _mm256_cvtepi32_ps(v); }
  static Int MagnitudeBits(Float v) {
    return _mm256_and_si256(_mm256_castps_si256(v), _mm256_set1_epi32(0x7fffffff));
  }
  static Int MaxBits(Int a, Int b) { return _mm256_max_epu32(a, b); }
  static uint32_t ReduceMaxBits(Int v) {
    __m128i m = _mm_max_epu32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    m = _mm_max_epu32(m, _mm_shuffle_epi32(m, _MM_SHUFFLE(1, 0, 3, 2)));
    m = _mm_max_epu32(m, _mm_shuffle_epi32(m, _MM_SHUFFLE(2, 3, 0, 1)));
    return static_cast<uint32_t>(_mm_cvtsi128_si32(m));
  }

  // Four quads of codes to out, out + stride, …; returns sum + twice their surplus, in any lanes.
  static Int StoreCodes(const Int (&codes)[2], std::byte* out, int64_t stride, Int sum) {
    constexpr int kEvenFirst = _MM_SHUFFLE(3, 1, 2, 0);
    const __m256i quads = _mm256_packs_epi32(_mm256_shuffle_epi32(codes[0], kEvenFirst),
                                             _mm256_shuffle_epi32(codes[1], kEvenFirst));
    const __m128i quads02 = _mm256_castsi256_si128(quads);
    const __m128i quads13 = _mm256_extracti128_si256(quads, 1);
    _mm_storel_pd(reinterpret_cast<double*>(out), _mm_castsi128_pd(quads02));
    _mm_storel_pd(reinterpret_cast<double*>(out + stride), _mm_castsi128_pd(quads13));
    _mm_storeh_pd(reinterpret_cast<double*>(out + 2 * stride), _mm_castsi128_pd(quads02));
    _mm_storeh_pd(reinterpret_cast<double*>(out + 3 * stride), _mm_castsi128_pd(quads13));
    const __m256i swapped = _mm256_shuffle_epi32(quads, _MM_SHUFFLE(2, 3, 0, 1));
    return _mm256_add_epi32(sum, _mm256_madd_epi16(quads, swapped));
  }
  static int32_t ReduceSurplus(Int v) {
    __m128i s = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    s = _mm_add_epi32(s, _mm_shuffle_epi32(s, _MM_SHUFFLE(1, 0, 3, 2)));
    s = _mm_add_epi32(s, _mm_shuffle_epi32(s, _MM_SHUFFLE(2, 3, 0, 1)));
    return _mm_cvtsi128_si32(s) / 2;
  }
  static int64_t ColumnSurplus(const int8_t* b) {  // of one output's 64 inputs
    int64_t sum = 0;
    for (int64_t k = 0; k < kGroupInputs; k += 2) sum += b[k] * b[k + 1];
    return sum;
  }
  static void PlaceQuad(const int8_t* b, int64_t output, std::byte* quad) {
    std::byte* even = quad + output / 8 * 32 + output % 8 * 2;
    even[0] = static_cast<std::byte>(b[0]);
    even[1] = static_cast<std::byte>(b[2]);
    even[16] = static_cast<std::byte>(b[1]);
    even[17] = static_cast<std::byte>(b[3]);
  }

  static Int Widen(const std::byte* p) {
    return _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  }
  static Int BroadcastPair(const std::byte* p) {
    int32_t pair;
    memcpy(&pair, p, sizeof pair);
    return _mm256_set1_epi32(pair);
  }

  template <int R>
  static void AddQuad(const std::byte* codes, const std::byte* weight, Int (&sum)[R][2]) {
    const Int even[2] = {Widen(weight), Widen(weight + 32)};
    const Int odd[2] = {Widen(weight + 16), Widen(weight + 48)};
    SPARSEFUSE_UNROLL
    for (int r = 0; r < R; ++r) {
      const Int a02 = BroadcastPair(codes + r * kQuadBytes);
      const Int a13 = BroadcastPair(codes + r * kQuadBytes + 4);
      SPARSEFUSE_UNROLL
      for (int v = 0; v < 2; ++v) {
        sum[r][v] = Add(sum[r][v], _mm256_madd_epi16(_mm256_add_epi16(a02, odd[v]),
                                                     _mm256_add_epi16(a13, even[v])));
      }
    }
  }
};

}  // namespace

constinit const LinearKernel kLinearAvx2 =
    KMajorKernel<kKMajorIsa<Avx2>>::Make("avx2", {CpuFeature::kAvx2, CpuFeature::kFma});

}  // namespace sparsefuse

#endif  // defined(__x86_64__)

// AVX2. vpmaddubsw multiplies unsigned by signed bytes and adds pairs in 16 bits, so activations go
// in as magnitude and sign mask (0 or −1 in each byte):
//   |a|·(b xor mask) = a·b + min(a, 0)      since b xor −1 = −b − 1
// The last term belongs to the row. No pair overflows: 2·127·128 < 2¹⁵. Per 32 products one vpxor,
// vpmaddubsw, vpmaddwd (pairs to 32 bits) and vpaddd, for any number of rows and with weights as
// bytes.

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
  static constexpr int kTileRows =
      5;  // 10 sums, 2 weight vectors, ones, 3 temporaries: 16 registers
  static constexpr int64_t kQuadBytes = 8;  // four magnitudes, four masks
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

  // Four quads of codes to out, out + stride, …; returns sum + their surplus, in any lanes.
  static Int StoreCodes(const Int (&codes)[2], std::byte* out, int64_t stride, Int sum) {
    const __m256i zero = _mm256_setzero_si256();
    const __m256i words = _mm256_packs_epi32(codes[0], codes[1]);  // quads 0, 2 | 1, 3
    const __m256i bytes = _mm256_packs_epi16(words, words);
    const __m256i quads =
        _mm256_unpacklo_epi32(_mm256_abs_epi8(bytes), _mm256_cmpgt_epi8(zero, bytes));
    const __m128d quads02 = _mm_castsi128_pd(_mm256_castsi256_si128(quads));
    const __m128d quads13 = _mm_castsi128_pd(_mm256_extracti128_si256(quads, 1));
    _mm_storel_pd(reinterpret_cast<double*>(out), quads02);
    _mm_storel_pd(reinterpret_cast<double*>(out + stride), quads13);
    _mm_storeh_pd(reinterpret_cast<double*>(out + 2 * stride), quads02);
    _mm_storeh_pd(reinterpret_cast<double*>(out + 3 * stride), quads13);
    return Add(sum, _mm256_madd_epi16(_mm256_min_epi16(words, zero), _mm256_set1_epi16(1)));
  }
  static int32_t ReduceSurplus(Int v) {
    __m128i s = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    s = _mm_add_epi32(s, _mm_shuffle_epi32(s, _MM_SHUFFLE(1, 0, 3, 2)));
    s = _mm_add_epi32(s, _mm_shuffle_epi32(s, _MM_SHUFFLE(2, 3, 0, 1)));
    return _mm_cvtsi128_si32(s);
  }
  static int64_t ColumnSurplus(const int8_t*) { return 0; }

  static Int BroadcastFour(const std::byte* p) {
    int32_t four;
    memcpy(&four, p, sizeof four);
    return _mm256_set1_epi32(four);
  }
  static Int LoadBytes(const std::byte* p) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  }

  template <int R>
  static void AddQuad(const std::byte* codes, const std::byte* weight, Int (&sum)[R][2]) {
    const Int w[2] = {LoadBytes(weight), LoadBytes(weight + 32)};
    SPARSEFUSE_UNROLL
    for (int r = 0; r < R; ++r) {
      const Int magnitude = BroadcastFour(codes + r * kQuadBytes);
      const Int mask = BroadcastFour(codes + r * kQuadBytes + 4);
      SPARSEFUSE_UNROLL
      for (int v = 0; v < 2; ++v) {
        const Int pairs = _mm256_maddubs_epi16(magnitude, _mm256_xor_si256(w[v], mask));
        sum[r][v] = Add(sum[r][v], _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
      }
    }
  }
};

}  // namespace

constinit const LinearKernel kLinearAvx2 =
    KMajorKernel<kKMajorIsa<Avx2>>::Make("avx2", {CpuFeature::kAvx2, CpuFeature::kFma});

}  // namespace sparsefuse

#endif  // defined(__x86_64__)

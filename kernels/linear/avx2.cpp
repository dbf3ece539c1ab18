// AVX2. vpmaddubsw multiplies unsigned by signed bytes and adds pairs in 16 bits, saturating; three
// ways round that:
//   * Weights of which two neighbours stay within 128 (KMajorIsas): activations as a + 128. Per 32
//     products one vpmaddubsw, vpmaddwd (pairs to 32 bits) and vpaddd.
//   * Weights of 4 bits: the same, but several quads add up in 16 bits before they are widened.
//   * Any weights: activations as magnitude and sign mask (0 or −1 in each byte),
//       |a|·(b xor mask) = a·b + min(a, 0)      since b xor −1 = −b − 1
//     whose last term belongs to the row. No pair overflows: 2·127·128 < 2¹⁵. One vpxor more.

#if defined(__x86_64__)

#include <immintrin.h>

#include "kernels/linear/kernels.h"
#include "kernels/linear/kmajor_tile.h"
#include "kernels/linear/offset_codes.h"

namespace sparsefuse {
namespace {

struct Avx2 {
  using Float = __m256;
  using Int = __m256i;

  static constexpr int64_t kLanes = 8;
  template <int R>
  static constexpr int kChains = 1;

  static Float Load(const float* p) { return _mm256_loadu_ps(p); }
  static Float LoadHalf(const uint16_t* p) {
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  }
  static Int LoadInt(const int32_t* p) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  }
  static Int LoadBytes(const std::byte* p) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  }
  static void StoreBytes(std::byte* p, Int v) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), v);
  }
  static void Store(float* p, Float v) { _mm256_storeu_ps(p, v); }
  static void StoreHalf(uint16_t* p, Float v) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
  }
  static Float Broadcast(float v) { return _mm256_set1_ps(v); }
  static Int BroadcastInt(int32_t v) { return _mm256_set1_epi32(v); }
  static Int BroadcastByte(int v) { return _mm256_set1_epi8(static_cast<char>(v)); }
  static Int Zero() { return _mm256_setzero_si256(); }

  static Float Multiply(Float a, Float b) { return _mm256_mul_ps(a, b); }
  static Float Divide(Float a, Float b) { return _mm256_div_ps(a, b); }
  static Float AddFloat(Float a, Float b) { return _mm256_add_ps(a, b); }
  static Float MultiplyAdd(Float a, Float b, Float c) { return _mm256_fmadd_ps(a, b, c); }
  static Float Max(Float a, Float b) { return _mm256_max_ps(a, b); }  // b where one is NaN
  static Float Min(Float a, Float b) { return _mm256_min_ps(a, b); }  // likewise
  static Float Abs(Float v) { return _mm256_castsi256_ps(MagnitudeBits(v)); }
  static Float PowerOfTwo(Int n) {  // −126 ≤ n ≤ 127
    return _mm256_castsi256_ps(_mm256_slli_epi32(Add(n, BroadcastInt(127)), 23));
  }
  static Float ToFloat(Int v) { return _mm256_cvtepi32_ps(v); }
  static Int Round(Float v) { return _mm256_cvtps_epi32(v); }  // to nearest, ties to even

  static Int Add(Int a, Int b) { return _mm256_add_epi32(a, b); }
  static Int Subtract(Int a, int32_t b) { return _mm256_sub_epi32(a, _mm256_set1_epi32(b)); }
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

  static Int And(Int a, Int b) { return _mm256_and_si256(a, b); }
  static Int Or(Int a, Int b) { return _mm256_or_si256(a, b); }
  static Int AddBytes(Int a, Int b) { return _mm256_add_epi8(a, b); }
  static Int ShiftLeft4(Int v) { return _mm256_slli_epi16(v, 4); }   // 16-bit lanes
  static Int ShiftRight4(Int v) { return _mm256_srli_epi16(v, 4); }  // likewise
  static Int Lookup(const int8_t (&table)[16], Int indices) {        // bytes 0 … 15
    return _mm256_shuffle_epi8(
        _mm256_broadcastsi128_si256(_mm_load_si128(reinterpret_cast<const __m128i*>(table))),
        indices);
  }

  // Neighbouring 16-bit lanes added into 32 bits.
  static Int Widen(Int pairs) { return _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)); }
};

struct Avx2Offset : Avx2, OffsetCodes<Avx2Offset> {
  static constexpr int kTileRows = 6;  // 12 sums, a broadcast, ones, a temporary of 16 registers

  static constexpr bool Takes(Encoding encoding) { return encoding != Encoding::kNested1; }
  // 16 bits hold the products of 8 quads of 4-bit weights: 8·2·255·8 < 2¹⁵.
  static constexpr int PairQuads(Reading reading) { return reading == Reading::kInt4 ? 8 : 1; }

  static void StoreOffsetBytes(const Int (&codes)[2], std::byte* out) {
    const __m256i words = _mm256_add_epi16(_mm256_packs_epi32(codes[0], codes[1]),
                                           _mm256_set1_epi16(128));  // quads 0, 2 | 1, 3
    const __m256i bytes = _mm256_permutevar8x32_epi32(_mm256_packus_epi16(words, words),
                                                      _mm256_setr_epi32(0, 4, 1, 5, 0, 0, 0, 0));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out), _mm256_castsi256_si128(bytes));
  }
  static Int DotBytes(Int sum, Int unsigned_bytes, Int signed_bytes) {
    return Add(sum, Widen(_mm256_maddubs_epi16(unsigned_bytes, signed_bytes)));
  }

  // pairs += the products of one quad in 16 bits.
  template <int R>
  static void AddPairs(const std::byte* codes, const Int (&w)[2], Int (&pairs)[R][2]) {
    SPARSEFUSE_UNROLL
    for (int r = 0; r < R; ++r) {
      const Int a = BroadcastQuad(codes + r * kQuadBytes);
      SPARSEFUSE_UNROLL
      for (int v = 0; v < 2; ++v) {
        pairs[r][v] = _mm256_add_epi16(pairs[r][v], _mm256_maddubs_epi16(a, w[v]));
      }
    }
  }
};

struct Avx2Masked : Avx2 {
  static constexpr int kTileRows =
      5;  // 10 sums, 2 weight vectors, ones, 3 temporaries of 16 registers
  static constexpr int64_t kQuadBytes = 8;  // four magnitudes, four masks
  static constexpr int64_t kColumnFactor = 0;
  static constexpr bool kRowSurplus = true;
  static constexpr int64_t kSurplusBytes = 16;  // Σ min(a, 0) of the quad for 8 rows, 16 bits each
  static constexpr bool Takes(Encoding encoding) {
    return encoding == Encoding::kInt8 || encoding == Encoding::kNested1;
  }
  static constexpr int PairQuads(Reading) { return 1; }

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
    return Add(sum, Widen(_mm256_min_epi16(words, zero)));
  }
  static int32_t ReduceSurplus(Int v) {
    __m128i s = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    s = _mm_add_epi32(s, _mm_shuffle_epi32(s, _MM_SHUFFLE(1, 0, 3, 2)));
    s = _mm_add_epi32(s, _mm_shuffle_epi32(s, _MM_SHUFFLE(2, 3, 0, 1)));
    return _mm_cvtsi128_si32(s);
  }

  // Behind the codes of a sparse tile's quad.
  static void StoreSurplus(std::byte* codes, int64_t rows) {
    int16_t surplus[8] = {};
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t k = 0; k < 4; ++k) {
        const auto magnitude = static_cast<int16_t>(codes[r * kQuadBytes + k]);
        const bool negative = codes[r * kQuadBytes + 4 + k] != std::byte{0};
        surplus[r] = static_cast<int16_t>(surplus[r] - (negative ? magnitude : 0));
      }
    }
    memcpy(codes + rows * kQuadBytes, surplus, sizeof surplus);
  }
  static Int NoSurplus() { return Zero(); }
  static Int AddSurplus(Int sum, const std::byte* surplus) {
    return Add(sum,
               _mm256_cvtepi16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(surplus))));
  }
  template <int R>
  static void StoreSurplusSums(Int sum, int32_t (&surplus)[R]) {
    int32_t all[8];
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(all), sum);
    for (int r = 0; r < R; ++r) surplus[r] = all[r];
  }

  static Int BroadcastFour(const std::byte* p) {
    int32_t four;
    memcpy(&four, p, sizeof four);
    return _mm256_set1_epi32(four);
  }
  template <int R>
  static void AddQuad(const std::byte* codes, const Int (&w)[2], Int (&sum)[R][2]) {
    SPARSEFUSE_UNROLL
    for (int r = 0; r < R; ++r) {
      const Int magnitude = BroadcastFour(codes + r * kQuadBytes);
      const Int mask = BroadcastFour(codes + r * kQuadBytes + 4);
      SPARSEFUSE_UNROLL
      for (int v = 0; v < 2; ++v) {
        sum[r][v] =
            Add(sum[r][v], Widen(_mm256_maddubs_epi16(magnitude, _mm256_xor_si256(w[v], mask))));
      }
    }
  }
};

constexpr KMajorIsas kIsas = {.any = kKMajorIsa<Avx2Masked>, .bounded = kKMajorIsa<Avx2Offset>};

}  // namespace

constinit const LinearKernel kLinearAvx2 =
    KMajorKernel<kIsas>::Make("avx2", {CpuFeature::kAvx2, CpuFeature::kFma, CpuFeature::kF16c});

}  // namespace sparsefuse

#endif  // defined(__x86_64__)

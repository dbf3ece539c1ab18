// Vector operations of AVX-512 (F, BW, DQ, VL) with VNNI, named after what they do. For files
// compiled for these instructions; in an unnamed namespace, so that each has its own copy and none
// is shared with code for another CPU.

#ifndef SPARSEFUSE_KERNELS_LINEAR_AVX512_LANES_H_
#define SPARSEFUSE_KERNELS_LINEAR_AVX512_LANES_H_

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

namespace sparsefuse {
namespace {

struct Avx512Lanes {
  using Float = __m512;
  using Int = __m512i;

  static constexpr int64_t kLanes = 16;

  static Float Load(const float* p) { return _mm512_loadu_ps(p); }
  static Float LoadHalf(const uint16_t* p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }
  static Int LoadInt(const int32_t* p) { return _mm512_loadu_si512(p); }
  static Int LoadBytes(const std::byte* p) { return _mm512_loadu_si512(p); }
  static void StoreBytes(std::byte* p, Int v) { _mm512_storeu_si512(p, v); }
  static void Store(float* p, Float v) { _mm512_storeu_ps(p, v); }
  static void StoreHalf(uint16_t* p, Float v) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p),
                        _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
  }
  static Float Broadcast(float v) { return _mm512_set1_ps(v); }
  static Int BroadcastInt(int32_t v) { return _mm512_set1_epi32(v); }
  static Int BroadcastByte(int v) { return _mm512_set1_epi8(static_cast<char>(v)); }
  static Int Zero() { return _mm512_setzero_si512(); }

  static Float Multiply(Float a, Float b) { return _mm512_mul_ps(a, b); }
  static Float Divide(Float a, Float b) { return _mm512_div_ps(a, b); }
  static Float AddFloat(Float a, Float b) { return _mm512_add_ps(a, b); }
  static Float MultiplyAdd(Float a, Float b, Float c) { return _mm512_fmadd_ps(a, b, c); }
  static Float Max(Float a, Float b) { return _mm512_max_ps(a, b); }  // b where one is NaN
  static Float Min(Float a, Float b) { return _mm512_min_ps(a, b); }  // likewise
  static Float Abs(Float v) { return _mm512_castsi512_ps(MagnitudeBits(v)); }
  static Float PowerOfTwo(Int n) {  // −126 ≤ n ≤ 127
    return _mm512_castsi512_ps(_mm512_slli_epi32(Add(n, BroadcastInt(127)), 23));
  }
  static Float ToFloat(Int v) { return _mm512_cvtepi32_ps(v); }
  static Int Round(Float v) { return _mm512_cvtps_epi32(v); }  // to nearest, ties to even

  static Int Add(Int a, Int b) { return _mm512_add_epi32(a, b); }
  static Int Subtract(Int a, int32_t b) { return _mm512_sub_epi32(a, _mm512_set1_epi32(b)); }
  static Int MagnitudeBits(Float v) {
    return _mm512_and_si512(_mm512_castps_si512(v), _mm512_set1_epi32(0x7fffffff));
  }
  static Int MaxBits(Int a, Int b) { return _mm512_max_epu32(a, b); }
  static uint32_t ReduceMaxBits(Int v) { return _mm512_reduce_max_epu32(v); }

  static Int And(Int a, Int b) { return _mm512_and_si512(a, b); }
  static Int Or(Int a, Int b) { return _mm512_or_si512(a, b); }
  static Int AddBytes(Int a, Int b) { return _mm512_add_epi8(a, b); }
  static Int ShiftLeft4(Int v) { return _mm512_slli_epi16(v, 4); }   // 16-bit lanes
  static Int ShiftRight4(Int v) { return _mm512_srli_epi16(v, 4); }  // likewise
  static Int Lookup(const int8_t (&table)[16], Int indices) {        // bytes 0 … 15
    return _mm512_shuffle_epi8(
        _mm512_broadcast_i32x4(_mm_load_si128(reinterpret_cast<const __m128i*>(table))), indices);
  }

  // Adds four products of unsigned and signed bytes to each lane.
  static Int DotBytes(Int sum, Int unsigned_bytes, Int signed_bytes) {
    return _mm512_dpbusd_epi32(sum, unsigned_bytes, signed_bytes);
  }
};

}  // namespace
}  // namespace sparsefuse

#endif  // SPARSEFUSE_KERNELS_LINEAR_AVX512_LANES_H_

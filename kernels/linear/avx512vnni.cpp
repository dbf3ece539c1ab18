// AVX-512 with VNNI. vpdpbusd multiplies unsigned by signed bytes, so activations go in as a + 128:
//   Σ a·b = Σ (a + 128)·b − 128·Σ b
// and the second sum belongs to the column. |Σ (a + 128)·b| ≤ 255·128·65,536 < 2³¹.

#if defined(__x86_64__)

#include <immintrin.h>

#include "kernels/linear/kernels.h"
#include "kernels/linear/kmajor_tile.h"
#include "kernels/linear/vnni.h"

namespace sparsefuse {
namespace {

struct Avx512Vnni : VnniLayout<Avx512Vnni> {
  using Float = __m512;
  using Int = __m512i;

  static Float Load(const float* p) { return _mm512_loadu_ps(p); }
  static Int LoadInt(const int32_t* p) { return _mm512_loadu_si512(p); }
  static Int LoadBytes(const std::byte* p) { return _mm512_loadu_si512(p); }
  static void Store(float* p, Float v) { _mm512_storeu_ps(p, v); }
  static Float Broadcast(float v) { return _mm512_set1_ps(v); }
  static Int BroadcastInt(int32_t v) { return _mm512_set1_epi32(v); }
  static Int Zero() { return _mm512_setzero_si512(); }
  static Float Multiply(Float a, Float b) { return _mm512_mul_ps(a, b); }
  static Float Divide(Float a, Float b) { return _mm512_div_ps(a, b); }
  static Float AddFloat(Float a, Float b) { return _mm512_add_ps(a, b); }
  static Float MultiplyAdd(Float a, Float b, Float c) { return _mm512_fmadd_ps(a, b, c); }
  static Int Add(Int a, Int b) { return _mm512_add_epi32(a, b); }
  static Int Subtract(Int a, int32_t b) { return _mm512_sub_epi32(a, _mm512_set1_epi32(b)); }
  static Int Round(Float v) { return _mm512_cvtps_epi32(v); }  // to nearest, ties to even
  static Float ToFloat(Int v) { return _mm512_cvtepi32_ps(v); }
  static Int MagnitudeBits(Float v) {
    return _mm512_and_si512(_mm512_castps_si512(v), _mm512_set1_epi32(0x7fffffff));
  }
  static Int MaxBits(Int a, Int b) { return _mm512_max_epu32(a, b); }
  static uint32_t ReduceMaxBits(Int v) { return _mm512_reduce_max_epu32(v); }
  static Int DotBytes(Int sum, Int unsigned_bytes, Int signed_bytes) {
    return _mm512_dpbusd_epi32(sum, unsigned_bytes, signed_bytes);
  }
  static void NarrowToBytes(Int v, std::byte* p) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(v));
  }
};

}  // namespace

constinit const LinearKernel kLinearAvx512Vnni = KMajorKernel<kKMajorIsa<Avx512Vnni>>::Make(
    "avx512vnni", {CpuFeature::kAvx512f, CpuFeature::kAvx512bw, CpuFeature::kAvx512dq,
                   CpuFeature::kAvx512vl, CpuFeature::kAvx512vnni});

}  // namespace sparsefuse

#endif  // defined(__x86_64__)

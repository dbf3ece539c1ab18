// AVX-512 with VNNI: vpdpbusd adds four products of unsigned and signed bytes into 32 bits, without
// saturation.

#if defined(__x86_64__)

#include "kernels/linear/avx512_lanes.h"
#include "kernels/linear/kernels.h"
#include "kernels/linear/kmajor_tile.h"
#include "kernels/linear/offset_codes.h"

namespace sparsefuse {
namespace {

struct Avx512Vnni : Avx512Lanes, OffsetCodes<Avx512Vnni> {
  static constexpr int kTileRows = 12;  // 24 sums, 2 weight vectors, 1 broadcast of 32 registers
  // vpdpbusd takes 5 cycles: one or two rows alone would wait for it.
  template <int R>
  static constexpr int kChains = R == 1   ? 4
                                 : R == 2 ? 2
                                          : 1;
  static constexpr bool Takes(Encoding) { return true; }
  static constexpr int PairQuads(Reading) { return 1; }

  static void StoreOffsetBytes(const Int (&codes)[2], std::byte* out) {
    for (int i = 0; i < 2; ++i) {
      _mm_storeu_si128(reinterpret_cast<__m128i*>(out + i * kLanes),
                       _mm512_cvtepi32_epi8(Add(codes[i], BroadcastInt(128))));
    }
  }
};

constexpr KMajorIsas kIsas = {.any = kKMajorIsa<Avx512Vnni>, .bounded = kKMajorIsa<Avx512Vnni>};

}  // namespace

constinit const LinearKernel kLinearAvx512Vnni = KMajorKernel<kIsas>::Make(
    "avx512vnni", {CpuFeature::kAvx512f, CpuFeature::kAvx512bw, CpuFeature::kAvx512dq,
                   CpuFeature::kAvx512vl, CpuFeature::kAvx512vnni});

}  // namespace sparsefuse

#endif  // defined(__x86_64__)

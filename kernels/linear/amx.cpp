// AMX: the tile unit multiplies 16 × 64 by 64 × 16 signed bytes into 16 × 16 sums of 32 bits.
//
// Its instructions stand here as assembly because gcc's intrinsics do not say which memory they
// read, and because their tile numbers must be literals, not template parameters. No compiler uses
// tile registers on its own.

#if defined(__x86_64__)

#include "kernels/linear/amx_tile.h"
#include "kernels/linear/avx512_lanes.h"
#include "kernels/linear/kernels.h"
#include "kernels/linear/unroll.h"

namespace sparsefuse {
namespace {

// What ldtilecfg loads: palette 1, eight tiles of 16 lines of 64 bytes.
struct alignas(64) TileConfig {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t line_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t lines[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};
static_assert(sizeof(TileConfig) == 64);
constexpr TileConfig kConfig;

struct Amx : Avx512Lanes {
  // --- Tiles ------------------------------------------------------------------------------------

  static void BeginTiles() { asm volatile("ldtilecfg %0" : : "m"(kConfig)); }
  static void EndTiles() { asm volatile("tilerelease"); }

  template <int tile>
  static void ZeroTile() {
    asm volatile("tilezero %%tmm%c0" : : "i"(tile));
  }
  template <int tile>
  static void LoadTile(const void* first_line, int64_t line_bytes) {
    asm volatile("tileloadd (%0,%1,1), %%tmm%c2"
                 :
                 : "r"(first_line), "r"(line_bytes), "i"(tile)
                 : "memory");
  }
  template <int tile>
  static void StoreTile(void* first_line, int64_t line_bytes) {
    asm volatile("tilestored %%tmm%c2, (%0,%1,1)"
                 :
                 : "r"(first_line), "r"(line_bytes), "i"(tile)
                 : "memory");
  }
  template <int sums, int a, int b>
  static void DotTiles() {
    asm volatile("tdpbssd %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(sums), "i"(a), "i"(b));
  }

  // --- Vectors ----------------------------------------------------------------------------------

  static void StoreBytes(std::byte* p, Int v) { _mm512_storeu_si512(p, v); }
  static void Prefetch(const std::byte* p) {
    _mm_prefetch(reinterpret_cast<const char*>(p), _MM_HINT_T0);
  }
  static int32_t ReduceAdd(Int v) { return _mm512_reduce_add_epi32(v); }
  static Int GatherQuads(const std::byte* quads, const uint16_t* index) {
    const __m256i narrow = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(index));
    return _mm512_i32gather_epi32(_mm512_cvtepu16_epi32(narrow), quads, 4);
  }

  // Packing goes on within each 128 bits: a quad of every source vector comes to lie there.
  static Int PackBytes(const Int (&first)[2], const Int (&second)[2]) {
    const Int bytes = _mm512_packs_epi16(_mm512_packs_epi32(first[0], first[1]),
                                         _mm512_packs_epi32(second[0], second[1]));
    const Int order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    return _mm512_permutexvar_epi32(order, bytes);
  }

  // Pairs of lanes, pairs of pairs within 128 bits, then the 128-bit parts, twice.
  static void Transpose(Int (&line)[16]) {
    Int t[16];
    SPARSEFUSE_UNROLL
    for (int i = 0; i < 16; i += 2) {
      t[i] = _mm512_unpacklo_epi32(line[i], line[i + 1]);
      t[i + 1] = _mm512_unpackhi_epi32(line[i], line[i + 1]);
    }
    SPARSEFUSE_UNROLL
    for (int i = 0; i < 16; i += 4) {
      line[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
      line[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
      line[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
      line[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
    SPARSEFUSE_UNROLL
    for (int i = 0; i < 4; ++i) {
      t[i] = _mm512_shuffle_i32x4(line[i], line[i + 4], 0x88);
      t[i + 4] = _mm512_shuffle_i32x4(line[i], line[i + 4], 0xdd);
      t[i + 8] = _mm512_shuffle_i32x4(line[i + 8], line[i + 12], 0x88);
      t[i + 12] = _mm512_shuffle_i32x4(line[i + 8], line[i + 12], 0xdd);
    }
    SPARSEFUSE_UNROLL
    for (int i = 0; i < 4; ++i) {
      line[i] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0x88);
      line[i + 4] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0x88);
      line[i + 8] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0xdd);
      line[i + 12] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0xdd);
    }
  }
};

}  // namespace

constinit const LinearKernel kLinearAmx = AmxKernel<kAmxIsa<Amx>>::Make(
    "amx",
    {CpuFeature::kAvx512f, CpuFeature::kAvx512bw, CpuFeature::kAvx512dq, CpuFeature::kAvx512vl,
     CpuFeature::kAvx512vnni, CpuFeature::kAmxTile, CpuFeature::kAmxInt8});

}  // namespace sparsefuse

#endif  // defined(__x86_64__)

// Compiled for the baseline: it must run on every CPU.

#include "kernels/base/cpu_features.h"

#include <array>
#include <cstdio>

#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace sparsefuse {
namespace {

// In the order of the enum.
constexpr std::array<const char*, static_cast<size_t>(CpuFeature::kCount)> kNames = {
    "avx2",     "fma",      "f16c",       "avxvnni",  "avx512f", "avx512bw",
    "avx512dq", "avx512vl", "avx512vnni", "amx-tile", "amx-int8"};

#if defined(__x86_64__)

// What the operating system saves on a context switch (XCR0); without it the registers are lost.
uint64_t EnabledState() noexcept {
  uint32_t low, high;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return uint64_t{high} << 32 | low;
}

// Linux gives the tile registers only to processes that ask, for all their threads.
bool AskForTiles() noexcept {
  constexpr long kRequestPermission = 0x1023;  // ARCH_REQ_XCOMP_PERM
  constexpr long kTileData = 18;               // the bit in XCR0
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

CpuFeatures Probe() noexcept {
  CpuFeatures found;
  uint32_t a, b, c, d;
  if (!__get_cpuid(1, &a, &b, &c, &d)) return found;
  const auto bit = [](uint32_t word, int n) { return (word >> n & 1u) != 0; };
  if (!bit(c, 27)) return found;  // OSXSAVE: xgetbv may be executed
  const uint64_t state = EnabledState();
  const auto enabled = [state](uint64_t mask) { return (state & mask) == mask; };
  const bool ymm = enabled(0x6);   // SSE, AVX
  const bool zmm = enabled(0xe6);  // + opmask, upper halves, registers 16…31
  const auto add = [&found](bool present, CpuFeature feature) {
    if (present) found.Add(feature);
  };
  add(ymm && bit(c, 12), CpuFeature::kFma);
  add(ymm && bit(c, 29), CpuFeature::kF16c);
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return found;
  const uint32_t subleaves = a;
  add(ymm && bit(b, 5), CpuFeature::kAvx2);
  add(zmm && bit(b, 16), CpuFeature::kAvx512f);
  add(zmm && bit(b, 17), CpuFeature::kAvx512dq);
  add(zmm && bit(b, 30), CpuFeature::kAvx512bw);
  add(zmm && bit(b, 31), CpuFeature::kAvx512vl);
  add(zmm && bit(c, 11), CpuFeature::kAvx512vnni);
  // XCR0: tile configuration, tile data.
  const bool tiles = bit(d, 24) && enabled(0x60000) && AskForTiles();
  add(tiles, CpuFeature::kAmxTile);
  add(tiles && bit(d, 25), CpuFeature::kAmxInt8);
  if (subleaves >= 1 && __get_cpuid_count(7, 1, &a, &b, &c, &d)) {
    add(ymm && bit(a, 4), CpuFeature::kAvxVnni);
  }
  return found;
}

#else

CpuFeatures Probe() noexcept { return {}; }

#endif

}  // namespace

CpuFeatures DetectCpuFeatures() noexcept {
  static const CpuFeatures features = Probe();
  return features;
}

void DescribeCpuFeatures(CpuFeatures features, std::span<char> text) noexcept {
  if (text.empty()) return;
  text[0] = '\0';
  size_t used = 0;
  for (size_t i = 0; i < kNames.size(); ++i) {
    if (!features.Has(static_cast<CpuFeature>(i)) || used >= text.size()) continue;
    used += static_cast<size_t>(std::snprintf(text.data() + used, text.size() - used, "%s%s",
                                              used == 0 ? "" : " ", kNames[i]));
  }
  if (used == 0) std::snprintf(text.data(), text.size(), "none");
}

}  // namespace sparsefuse

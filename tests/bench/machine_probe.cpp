#include "tests/bench/machine_probe.h"

#include <time.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include "kernels/base/cpu_features.h"

#if defined(__x86_64__)
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace sparsefuse::test {

double Now(bool cpu_time) {
  timespec t;
  clock_gettime(cpu_time ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

#if defined(__x86_64__)
namespace {

constexpr int kRounds = 20000;

// Each returns operations done.
__attribute__((target("avx2"))) double MultiplyAvx2() {
  __m256i sum[10], a = _mm256_set1_epi8(3), b = _mm256_set1_epi8(-5);
  const __m256i ones = _mm256_set1_epi16(1);
  for (__m256i& s : sum) s = _mm256_setzero_si256();
  for (int i = 0; i < kRounds; ++i) {
    for (__m256i& s : sum) {
      asm volatile("" : "+x"(a), "+x"(b));  // products are not moved out of the loop
      s = _mm256_add_epi32(s, _mm256_madd_epi16(_mm256_maddubs_epi16(a, b), ones));
    }
  }
  for (__m256i& s : sum) asm volatile("" : : "x"(s));
  return kRounds * 10.0 * 32 * 2;
}

__attribute__((target("avx512f,avx512vnni"))) double MultiplyVnni() {
  __m512i sum[20], a = _mm512_set1_epi32(0x03030303), b = _mm512_set1_epi32(0x05050505);
  for (__m512i& s : sum) s = _mm512_setzero_si512();
  for (int i = 0; i < kRounds; ++i) {
    for (__m512i& s : sum) {
      asm volatile("" : "+v"(a), "+v"(b));
      s = _mm512_dpbusd_epi32(s, a, b);
    }
  }
  for (__m512i& s : sum) asm volatile("" : : "v"(s));
  return kRounds * 20.0 * 64 * 2;
}

constexpr int kTileRounds = 2000;
__attribute__((target("amx-tile,amx-int8"))) double MultiplyTiles() {
  struct alignas(64) {
    uint8_t palette = 1, start_row = 0, reserved[14] = {};
    uint16_t column_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
    uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
  } config;
  _tile_loadconfig(&config);
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  _tile_zero(4);
  _tile_zero(5);
  for (int i = 0; i < kTileRounds; ++i) {
    _tile_dpbssd(0, 4, 5);
    _tile_dpbssd(1, 4, 5);
    _tile_dpbssd(2, 4, 5);
    _tile_dpbssd(3, 4, 5);
  }
  _tile_release();
  return kTileRounds * 4.0 * 16 * 16 * 64 * 2;
}

bool MayUseTiles() {
  constexpr long kRequestPermission = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM
  static const bool may =
      DetectCpuFeatures().Contains({CpuFeature::kAmxTile, CpuFeature::kAmxInt8}) &&
      syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
  return may;
}

// Best of several.
double OperationsPerSecond(double (*multiply)()) {
  double best = 0;
  for (int i = 0; i < 15; ++i) {
    const double start = Now(true);
    const double operations = multiply();
    best = std::max(best, operations / (Now(true) - start));
  }
  return best;
}

}  // namespace

double PeakGops() {
  const CpuFeatures cpu = DetectCpuFeatures();
  if (MayUseTiles()) return OperationsPerSecond(MultiplyTiles) * 1e-9;
  if (cpu.Contains({CpuFeature::kAvx512f, CpuFeature::kAvx512vnni})) {
    return OperationsPerSecond(MultiplyVnni) * 1e-9;
  }
  return cpu.Has(CpuFeature::kAvx2) ? OperationsPerSecond(MultiplyAvx2) * 1e-9 : 0;
}

double AmxTileNs() {
  if (!MayUseTiles()) return 0;
  const double start = Now(true);
  MultiplyTiles();
  return (Now(true) - start) / (kTileRounds * 4) * 1e9;
}

#else

double PeakGops() { return 0; }
double AmxTileNs() { return 0; }

#endif

double StreamGbPerSecond() {
  // Eight streams side by side, as several panels are: one alone waits for the prefetcher.
  constexpr size_t kStreams = 8;
  std::vector<uint64_t> memory(size_t{256} << 17, 1);
  const size_t length = memory.size() / kStreams;
  double best = 0;
  for (int i = 0; i < 5; ++i) {
    const double start = Now(true);
    uint64_t sums[kStreams] = {};
    for (size_t j = 0; j < length; j += 8) {  // one line of each
      for (size_t s = 0; s < kStreams; ++s) {
        for (size_t k = 0; k < 8; ++k) sums[s] += memory[s * length + j + k];
      }
    }
    asm volatile("" : : "r"(sums) : "memory");
    best = std::max(best, static_cast<double>(memory.size() * 8) / (Now(true) - start));
  }
  return best * 1e-9;
}

}  // namespace sparsefuse::test

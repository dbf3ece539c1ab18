// The 16-lane vector operations of AVX-512, lane by lane: kernels/linear/avx512_lanes.h imitated,
// so that what is written over it is tested on every machine.

#ifndef SPARSEFUSE_TESTS_KERNELS_EMULATED_LANES_H_
#define SPARSEFUSE_TESTS_KERNELS_EMULATED_LANES_H_

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "kernels/base/float16.h"

namespace sparsefuse::test {

struct EmulatedLanes {
  static constexpr int64_t kLanes = 16;

  // The compiler's own vectors, on any machine: arrays of lanes would take minutes to compile.
  static constexpr int kBytes = 64;
  using Float [[gnu::vector_size(kBytes)]] = float;
  using Int [[gnu::vector_size(kBytes)]] = int32_t;
  using Unsigned [[gnu::vector_size(kBytes)]] = uint32_t;
  using Bytes [[gnu::vector_size(kBytes)]] = uint8_t;

  static Unsigned Bits(const Int& v) { return std::bit_cast<Unsigned>(v); }
  static Int FromBits(const Unsigned& v) { return std::bit_cast<Int>(v); }
  template <typename Out, typename F>
  static Out Map(F lane) {
    Out out{};
    for (int i = 0; i < kLanes; ++i) out[i] = lane(i);
    return out;
  }
  template <typename Out>
  static Out FromMemory(const void* p) {
    Out out;
    std::memcpy(&out, p, sizeof out);
    return out;
  }
  static Float Load(const float* p) { return FromMemory<Float>(p); }
  static Int LoadInt(const int32_t* p) { return FromMemory<Int>(p); }
  static Int LoadBytes(const std::byte* p) { return FromMemory<Int>(p); }
  static void StoreBytes(std::byte* p, const Int& v) { std::memcpy(p, &v, sizeof v); }
  static void Store(float* p, const Float& v) { std::memcpy(p, &v, sizeof v); }
  // Minus 0 in every lane: the one sum that keeps v, if it is −0, too.
  static Float Broadcast(float v) { return v - Float{}; }
  static Int BroadcastInt(int32_t v) { return v - Int{}; }
  static Int BroadcastByte(int v) {
    return FromBits(static_cast<uint32_t>(v) * 0x01010101u - Unsigned{});
  }
  static Int Zero() { return Int{}; }
  static Float LoadHalf(const uint16_t* p) {
    return Map<Float>([=](int i) { return Float16ToFloat(p[i]); });
  }
  static void StoreHalf(uint16_t* p, const Float& v) {
    for (int i = 0; i < kLanes; ++i) p[i] = FloatToFloat16(v[i]);
  }
  static Float Multiply(const Float& a, const Float& b) { return a * b; }
  static Float Divide(const Float& a, const Float& b) { return a / b; }
  static Float AddFloat(const Float& a, const Float& b) { return a + b; }
  static Float MultiplyAdd(const Float& a, const Float& b, const Float& c) {
    return Map<Float>([&](int i) { return std::fma(a[i], b[i], c[i]); });
  }
  // vmaxps, vminps: the second where either is NaN.
  static Float Max(const Float& a, const Float& b) { return a > b ? a : b; }
  static Float Min(const Float& a, const Float& b) { return a < b ? a : b; }
  static Float Abs(const Float& v) { return std::bit_cast<Float>(MagnitudeBits(v)); }
  static Float PowerOfTwo(const Int& n) { return std::bit_cast<Float>((n + 127) << 23); }
  static Int Add(const Int& a, const Int& b) { return FromBits(Bits(a) + Bits(b)); }
  static Int Subtract(const Int& a, int32_t b) {
    return FromBits(Bits(a) - static_cast<uint32_t>(b));
  }
  // vcvtps2dq: to nearest even; out of range and NaN give 0x80000000.
  static Int Round(const Float& v) {
    return Map<Int>([&](int i) {
      const float r = std::nearbyint(v[i]);
      return std::fabs(r) < 0x1p31f ? static_cast<int32_t>(r) : INT32_MIN;
    });
  }
  static Float ToFloat(const Int& v) { return __builtin_convertvector(v, Float); }
  static Int MagnitudeBits(const Float& v) { return std::bit_cast<Int>(v) & 0x7fffffff; }
  static Int MaxBits(const Int& a, const Int& b) { return Bits(a) > Bits(b) ? a : b; }
  static uint32_t ReduceMaxBits(const Int& v) {
    uint32_t most = 0;
    for (int i = 0; i < kLanes; ++i) most = std::max(most, Bits(v)[i]);
    return most;
  }
  // vpdpbusd: adds four products of an unsigned by a signed byte to each lane; wraps.
  static Int DotBytes(const Int& sum, const Int& unsigned_bytes, const Int& signed_bytes) {
    Unsigned lanes = Bits(sum);
    for (int byte = 0; byte < 32; byte += 8) {
      const Unsigned u = Bits(unsigned_bytes) >> byte & 255;
      const Int s = FromBits(Bits(signed_bytes) << (24 - byte)) >> 24;
      lanes += u * Bits(s);
    }
    return FromBits(lanes);
  }
  static Int And(const Int& a, const Int& b) { return a & b; }
  static Int Or(const Int& a, const Int& b) { return a | b; }
  // 16-bit halves.
  static Int ShiftLeft4(const Int& v) { return FromBits(Bits(v) << 4 & 0xfff0fff0u); }
  static Int ShiftRight4(const Int& v) { return FromBits(Bits(v) >> 4 & 0x0fff0fffu); }
  static Int AddBytes(const Int& a, const Int& b) {
    return std::bit_cast<Int>(std::bit_cast<Bytes>(a) + std::bit_cast<Bytes>(b));
  }
  static Int Lookup(const int8_t (&table)[16], const Int& indices) {
    auto bytes = std::bit_cast<Bytes>(indices);
    for (int i = 0; i < kBytes; ++i) bytes[i] = static_cast<uint8_t>(table[bytes[i] & 15]);
    return std::bit_cast<Int>(bytes);
  }
};

}  // namespace sparsefuse::test

#endif  // SPARSEFUSE_TESTS_KERNELS_EMULATED_LANES_H_

// The 16-lane vector operations of AVX-512, lane by lane: kernels/linear/avx512_lanes.h imitated,
// so that what is written over it is tested on every machine.

#ifndef SPARSEFUSE_TESTS_KERNELS_EMULATED_LANES_H_
#define SPARSEFUSE_TESTS_KERNELS_EMULATED_LANES_H_

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "kernels/base/float16.h"

namespace sparsefuse::test {

struct EmulatedLanes {
  using Float = std::array<float, 16>;
  using Int = std::array<int32_t, 16>;

  static constexpr int64_t kLanes = 16;

  template <typename Out, typename F>
  static Out Map(F lane) {
    Out out;
    for (size_t i = 0; i < out.size(); ++i) out[i] = lane(i);
    return out;
  }
  static int32_t Wrap(uint32_t v) { return std::bit_cast<int32_t>(v); }
  static uint32_t Bits(int32_t v) { return std::bit_cast<uint32_t>(v); }

  template <typename Out>
  static Out FromMemory(const void* p) {
    Out out;
    std::memcpy(out.data(), p, sizeof out);
    return out;
  }
  static Float Load(const float* p) { return FromMemory<Float>(p); }
  static Int LoadInt(const int32_t* p) { return FromMemory<Int>(p); }
  static Int LoadBytes(const std::byte* p) { return FromMemory<Int>(p); }
  static void StoreBytes(std::byte* p, const Int& v) { std::memcpy(p, v.data(), sizeof v); }
  static void Store(float* p, const Float& v) { std::memcpy(p, v.data(), sizeof v); }
  static Float Broadcast(float v) {
    return Map<Float>([=](size_t) { return v; });
  }
  static Int BroadcastInt(int32_t v) {
    return Map<Int>([=](size_t) { return v; });
  }
  static Int BroadcastByte(int v) {
    return BroadcastInt(Wrap(static_cast<uint32_t>(v) * 0x01010101u));
  }
  static Int Zero() { return {}; }
  static Float LoadHalf(const uint16_t* p) {
    return Map<Float>([=](size_t i) { return Float16ToFloat(p[i]); });
  }
  static void StoreHalf(uint16_t* p, const Float& v) {
    for (float lane : v) *p++ = FloatToFloat16(lane);
  }
  static Float Multiply(const Float& a, const Float& b) {
    return Map<Float>([&](size_t i) { return a[i] * b[i]; });
  }
  static Float Divide(const Float& a, const Float& b) {
    return Map<Float>([&](size_t i) { return a[i] / b[i]; });
  }
  static Float AddFloat(const Float& a, const Float& b) {
    return Map<Float>([&](size_t i) { return a[i] + b[i]; });
  }
  static Float MultiplyAdd(const Float& a, const Float& b, const Float& c) {
    return Map<Float>([&](size_t i) { return std::fma(a[i], b[i], c[i]); });
  }
  // vmaxps, vminps: the second where either is NaN.
  static Float Max(const Float& a, const Float& b) {
    return Map<Float>([&](size_t i) { return a[i] > b[i] ? a[i] : b[i]; });
  }
  static Float Min(const Float& a, const Float& b) {
    return Map<Float>([&](size_t i) { return a[i] < b[i] ? a[i] : b[i]; });
  }
  static Float Abs(const Float& v) {
    return Map<Float>([&](size_t i) { return std::fabs(v[i]); });
  }
  static Float PowerOfTwo(const Int& n) {
    return Map<Float>([&](size_t i) { return std::bit_cast<float>((n[i] + 127) << 23); });
  }
  static Int Add(const Int& a, const Int& b) {
    return Map<Int>([&](size_t i) { return Wrap(Bits(a[i]) + Bits(b[i])); });
  }
  static Int Subtract(const Int& a, int32_t b) {
    return Map<Int>([&](size_t i) { return Wrap(Bits(a[i]) - Bits(b)); });
  }
  // vcvtps2dq: to nearest even; out of range and NaN give 0x80000000.
  static Int Round(const Float& v) {
    return Map<Int>([&](size_t i) {
      const float r = std::nearbyint(v[i]);
      return std::fabs(r) < 0x1p31f ? static_cast<int32_t>(r) : INT32_MIN;
    });
  }
  static Float ToFloat(const Int& v) {
    return Map<Float>([&](size_t i) { return static_cast<float>(v[i]); });
  }
  static Int MagnitudeBits(const Float& v) {
    return Map<Int>([&](size_t i) { return std::bit_cast<int32_t>(v[i]) & 0x7fffffff; });
  }
  static Int MaxBits(const Int& a, const Int& b) {
    return Map<Int>([&](size_t i) { return Wrap(std::max(Bits(a[i]), Bits(b[i]))); });
  }
  static uint32_t ReduceMaxBits(const Int& v) {
    uint32_t most = 0;
    for (int32_t lane : v) most = std::max(most, Bits(lane));
    return most;
  }
  // vpdpbusd: adds four products of an unsigned by a signed byte to each lane; wraps.
  static Int DotBytes(const Int& sum, const Int& unsigned_bytes, const Int& signed_bytes) {
    return Map<Int>([&](size_t i) {
      uint32_t lane = Bits(sum[i]);
      for (int byte = 0; byte < 32; byte += 8) {
        const auto u = static_cast<uint8_t>(Bits(unsigned_bytes[i]) >> byte);
        const auto s = static_cast<int8_t>(Bits(signed_bytes[i]) >> byte);
        lane += Bits(int32_t{u} * s);
      }
      return Wrap(lane);
    });
  }
  static Int And(const Int& a, const Int& b) {
    return Map<Int>([&](size_t i) { return a[i] & b[i]; });
  }
  static Int Or(const Int& a, const Int& b) {
    return Map<Int>([&](size_t i) { return a[i] | b[i]; });
  }
  // 16-bit halves.
  static Int ShiftLeft4(const Int& v) {
    return Map<Int>([&](size_t i) { return Wrap(Bits(v[i]) << 4 & 0xfff0fff0u); });
  }
  static Int ShiftRight4(const Int& v) {
    return Map<Int>([&](size_t i) { return Wrap(Bits(v[i]) >> 4 & 0x0fff0fffu); });
  }
  static Int AddBytes(const Int& a, const Int& b) {
    return MapBytes([&](size_t i, int byte) {
      return (Bits(a[i]) >> byte & 255u) + (Bits(b[i]) >> byte & 255u);
    });
  }
  static Int Lookup(const int8_t (&table)[16], const Int& indices) {
    return MapBytes([&](size_t i, int byte) {
      return static_cast<uint32_t>(table[Bits(indices[i]) >> byte & 15u]);
    });
  }
  template <typename F>
  static Int MapBytes(F value) {
    return Map<Int>([&](size_t i) {
      uint32_t lane = 0;
      for (int byte = 0; byte < 32; byte += 8) lane |= (value(i, byte) & 255u) << byte;
      return Wrap(lane);
    });
  }
};

}  // namespace sparsefuse::test

#endif  // SPARSEFUSE_TESTS_KERNELS_EMULATED_LANES_H_

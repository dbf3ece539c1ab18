// What this CPU offers and the operating system has enabled.

#ifndef SPARSEFUSE_KERNELS_BASE_CPU_FEATURES_H_
#define SPARSEFUSE_KERNELS_BASE_CPU_FEATURES_H_

#include <cstdint>
#include <initializer_list>
#include <span>

namespace sparsefuse {

enum class CpuFeature : uint8_t {
  kAvx2,
  kFma,
  kF16c,
  kAvxVnni,
  kAvx512f,
  kAvx512bw,
  kAvx512dq,
  kAvx512vl,
  kAvx512vnni,
  kAmxTile,  // with the permission to use the registers, which probing asks for
  kAmxInt8,
  kCount,
};

class CpuFeatures {
 public:
  constexpr CpuFeatures() = default;
  constexpr CpuFeatures(std::initializer_list<CpuFeature> features) {
    for (CpuFeature feature : features) Add(feature);
  }
  constexpr void Add(CpuFeature feature) { bits_ |= 1u << static_cast<unsigned>(feature); }
  constexpr bool Has(CpuFeature feature) const {
    return bits_ >> static_cast<unsigned>(feature) & 1u;
  }
  constexpr bool Contains(CpuFeatures needed) const { return (needed.bits_ & ~bits_) == 0; }
  constexpr CpuFeatures Without(CpuFeatures others) const {
    CpuFeatures rest;
    rest.bits_ = bits_ & ~others.bits_;
    return rest;
  }
  constexpr bool empty() const { return bits_ == 0; }

 private:
  uint32_t bits_ = 0;
};

// Probes once; thread-safe. Empty on other architectures than x86-64.
CpuFeatures DetectCpuFeatures() noexcept;

// "avx2 fma f16c", "none" for an empty set: written to `text`, cut to its size, zero-terminated.
void DescribeCpuFeatures(CpuFeatures features, std::span<char> text) noexcept;

}  // namespace sparsefuse

#endif  // SPARSEFUSE_KERNELS_BASE_CPU_FEATURES_H_

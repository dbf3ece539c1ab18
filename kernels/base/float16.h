// float16 and bfloat16 ⇄ float, portable and exact. Narrowing rounds to nearest, ties to even;
// overflow gives ±Inf; a NaN stays a (quiet) NaN of the same sign.

#ifndef SPARSEFUSE_KERNELS_BASE_FLOAT16_H_
#define SPARSEFUSE_KERNELS_BASE_FLOAT16_H_

#include <bit>
#include <cstdint>

namespace sparsefuse {

constexpr float Float16ToFloat(uint16_t half) noexcept {
  const uint32_t sign = uint32_t{half} >> 15 << 31;
  const uint32_t rest = half & 0x7fffu;
  if (rest >= 0x7c00) {  // Inf, NaN
    const uint32_t quiet = rest > 0x7c00 ? 0x400000u : 0u;
    return std::bit_cast<float>(sign | 0x7f800000u | (rest & 0x3ffu) << 13 | quiet);
  }
  if (rest >= 0x400) return std::bit_cast<float>(sign | ((rest << 13) + (112u << 23)));
  const float magnitude = static_cast<float>(rest) * 0x1p-24f;  // subnormal or zero: exact
  return std::bit_cast<float>(sign | std::bit_cast<uint32_t>(magnitude));
}

constexpr uint16_t FloatToFloat16(float value) noexcept {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint32_t sign = bits >> 16 & 0x8000u;
  const uint32_t rest = bits & 0x7fffffffu;
  if (rest > 0x7f800000u) return static_cast<uint16_t>(sign | 0x7e00u | (rest >> 13 & 0x3ffu));
  if (rest >= 0x477ff000u) return static_cast<uint16_t>(sign | 0x7c00u);  // ≥ 65520 rounds to Inf
  if (rest < 0x38800000u) {  // below 2⁻¹⁴: adding 0.5 leaves units of 2⁻²⁴, rounded by the addition
    const uint32_t sum = std::bit_cast<uint32_t>(std::bit_cast<float>(rest) + 0.5f);
    return static_cast<uint16_t>(sign | (sum - 0x3f000000u));
  }
  const uint32_t rounded = rest + 0xfffu + (rest >> 13 & 1u);
  return static_cast<uint16_t>(sign | ((rounded - (112u << 23)) >> 13));
}

constexpr float Bfloat16ToFloat(uint16_t brain) noexcept {
  return std::bit_cast<float>(uint32_t{brain} << 16);
}

constexpr uint16_t FloatToBfloat16(float value) noexcept {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>(bits >> 16 | 0x40u);
  return static_cast<uint16_t>((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

}  // namespace sparsefuse

#endif  // SPARSEFUSE_KERNELS_BASE_FLOAT16_H_

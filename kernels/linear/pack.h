// Layout 1 of docs/formats.md: weights as the kernels read them.
//
//   panel  32 consecutive outputs (N padded)    group  64 consecutive inputs of a panel (K padded),
//   2,048 bytes: byte 64·r + 4·q + k is output r ∈ 0…31, quad q ∈ 0…15, input k ∈ 0…3 of the group.
//   int8 weight tensor: [panels·groups_per_panel, 32, 16, 4], panel-major; padding is 0.

#ifndef SPARSEFUSE_KERNELS_LINEAR_PACK_H_
#define SPARSEFUSE_KERNELS_LINEAR_PACK_H_

#include <cstdint>
#include <span>

namespace sparsefuse {

inline constexpr int64_t kPanelOutputs = 32;
inline constexpr int64_t kGroupInputs = 64;
inline constexpr int64_t kGroupBytes8 = kPanelOutputs * kGroupInputs;
inline constexpr int64_t kMaxInputs = 65536;              // K
inline constexpr int64_t kMaxOutputs = int64_t{1} << 24;  // N

constexpr int64_t PanelCount(int64_t outputs) noexcept {
  return (outputs + kPanelOutputs - 1) / kPanelOutputs;
}
constexpr int64_t GroupsPerPanel(int64_t inputs) noexcept {
  return (inputs + kGroupInputs - 1) / kGroupInputs;
}

// codes: [N, K] row-major (one row an output); packed: PanelCount(N)·GroupsPerPanel(K)·2,048 bytes.
void PackDense8(std::span<const int8_t> codes, int64_t inputs, int64_t outputs,
                std::span<int8_t> packed) noexcept;
void UnpackDense8(std::span<const int8_t> packed, int64_t inputs, int64_t outputs,
                  std::span<int8_t> codes) noexcept;

// Scales as one byte each: scale = base · 2^(code/16).
// scales: ≥ 0 and finite. Returns base = (largest scale)·2^(−255/16), or the smallest normal float
// when all are 0; codes are rounded up, so that the decoded scale is never smaller than the wanted
// one (nothing clips); a scale of 0 gets code 0, so does one below base.
float EncodeScales(std::span<const float> scales, std::span<uint8_t> codes) noexcept;
float DecodeScale(float base, uint8_t code) noexcept;

}  // namespace sparsefuse

#endif  // SPARSEFUSE_KERNELS_LINEAR_PACK_H_

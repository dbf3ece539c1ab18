// Layout 1 of docs/formats.md: weights as the kernels read them.
//
//   panel  32 consecutive outputs (N padded)      quad  4 consecutive inputs
//   group  16 quads of a panel in ascending order: 2,048 weights, the unit that is stored
// Dense: every quad, K padded to whole groups. Sparse: the quads that BlockIndex lists; the last
// group of a panel is filled up with the quad number ⌈K/4⌉, whose inputs are zero. Padding is 0.
//
// Output r ∈ 0…31, quad q ∈ 0…15, input k ∈ 0…3 of a group, nibbles in two's complement:
//   int8    byte 64·r + 4·q + k
//   int4    byte 64·r + 4·q + k for r ∈ 0…15: low nibble output r, high nibble output 16 + r
//   nested  two planes like int4, all groups' high parts h, then all groups' low parts l
//     Nested1   weight 16·h + l, l unsigned;  read in 4 bits 16·h + 8
//     Nested4   weight 4·h + l,  l signed;    read in 4 bits 4·h
//
// "Codes" here are a weight's byte before packing: the weight itself for int8 and int4; the byte
// with h above l for nested, which for Nested1 is the weight, too.

#ifndef SPARSEFUSE_KERNELS_LINEAR_PACK_H_
#define SPARSEFUSE_KERNELS_LINEAR_PACK_H_

#include <cstddef>
#include <cstdint>
#include <span>

namespace sparsefuse {

enum class Encoding : uint8_t { kInt8, kInt4, kNested1, kNested4 };

inline constexpr int64_t kPanelOutputs = 32;
inline constexpr int64_t kGroupInputs = 64;  // stored
inline constexpr int64_t kGroupQuads = 16;
inline constexpr int64_t kGroupWeights = kPanelOutputs * kGroupInputs;
inline constexpr int64_t kMaxInputs = 65536;              // K
inline constexpr int64_t kMaxOutputs = int64_t{1} << 24;  // N

constexpr bool IsNested(Encoding encoding) noexcept {
  return encoding == Encoding::kNested1 || encoding == Encoding::kNested4;
}
// Of a group in one plane; nested encodings have two planes, others one.
constexpr int64_t PlaneBytes(Encoding encoding) noexcept {
  return encoding == Encoding::kInt8 ? kGroupWeights : kGroupWeights / 2;
}
constexpr int64_t GroupBytes(Encoding encoding) noexcept {
  return PlaneBytes(encoding) * (IsNested(encoding) ? 2 : 1);
}

constexpr int64_t PanelCount(int64_t outputs) noexcept {
  return (outputs + kPanelOutputs - 1) / kPanelOutputs;
}
constexpr int64_t QuadCount(int64_t inputs) noexcept { return (inputs + 3) / 4; }
constexpr int64_t GroupsPerPanel(int64_t inputs) noexcept {  // dense
  return (inputs + kGroupInputs - 1) / kGroupInputs;
}

// Which quads the groups hold. Owns nothing.
struct BlockIndex {
  const uint16_t* quad = nullptr;      // [16·groups]; null: dense
  const int32_t* group_ptr = nullptr;  // [panels + 1], in groups
  constexpr bool dense() const noexcept { return quad == nullptr; }
};

// What is wrong with a sparse layer's index, written to `text` and cut to its size; false then.
// Checked: group_ptr starts at 0, never falls, ends at `groups`; the quads of a panel ascend, the
// padding ⌈K/4⌉ fills at most the end of its last group, nothing is beyond.
bool CheckBlocks(const BlockIndex& blocks, int64_t inputs, int64_t outputs, int64_t groups,
                 std::span<char> text) noexcept;

// codes: [N, K] row-major (one row an output). packed: groups · GroupBytes(encoding).
// Codes of quads that the index leaves out are not stored.
void PackWeights(Encoding encoding, const BlockIndex& blocks, std::span<const int8_t> codes,
                 int64_t inputs, int64_t outputs, std::span<std::byte> packed) noexcept;
// The reverse; quads that are not stored give 0.
void UnpackWeights(Encoding encoding, const BlockIndex& blocks, std::span<const std::byte> packed,
                   int64_t inputs, int64_t outputs, std::span<int8_t> codes) noexcept;

// The weight that a code stands for; in its 4-bit reading, which int8 and int4 do not have.
constexpr int DecodeWeight(Encoding encoding, int8_t code) noexcept {
  return encoding == Encoding::kNested4 ? 4 * (code >> 4) + ((code & 15) ^ 8) - 8 : code;
}
constexpr int DecodeHigh(Encoding encoding, int8_t code) noexcept {
  return encoding == Encoding::kNested4 ? 4 * (code >> 4) : 16 * (code >> 4) + 8;
}

// Scales as one byte each: scale = base · 2^(code/16).
// scales: ≥ 0 and finite. Returns base = (largest scale)·2^(−255/16), or the smallest normal float
// when all are 0; codes are rounded up, so that the decoded scale is never smaller than the wanted
// one (nothing clips); a scale of 0 gets code 0, so does one below base.
float EncodeScales(std::span<const float> scales, std::span<uint8_t> codes) noexcept;
float DecodeScale(float base, uint8_t code) noexcept;
// 2^(i/16), rounded to float: what every decoder of scales multiplies by.
struct ScaleRoots {
  float root[16];
};
inline constexpr ScaleRoots kScaleRoots = {
    {0x1p+0f, 0x1.0b5586p+0f, 0x1.172b84p+0f, 0x1.2387a6p+0f, 0x1.306fep+0f, 0x1.3dea64p+0f,
     0x1.4bfdaep+0f, 0x1.5ab07ep+0f, 0x1.6a09e6p+0f, 0x1.7a1148p+0f, 0x1.8ace54p+0f, 0x1.9c4918p+0f,
     0x1.ae89fap+0f, 0x1.c199bep+0f, 0x1.d5818ep+0f, 0x1.ea4afap+0f}};

}  // namespace sparsefuse

#endif  // SPARSEFUSE_KERNELS_LINEAR_PACK_H_

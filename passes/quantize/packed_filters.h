// Filters of convolutions that are stored in 4 bits and computed in 8:
//
//   w[m,k] ≈ scales[m]·multipliers[m, k/32]·nibbles[m,k],  nibbles −8…7, multipliers 1…8
//
// The product of the two integers is an int8 code of at most 64, so an int8 convolution takes it,
// and two products of it with unsigned bytes are exact in 16 bits (PairBound). The file holds half
// a byte a weight and a byte every 32.

#ifndef SPARSEFUSE_PASSES_QUANTIZE_PACKED_FILTERS_H_
#define SPARSEFUSE_PASSES_QUANTIZE_PACKED_FILTERS_H_

#include <Eigen/Core>
#include <cstdint>
#include <span>
#include <vector>

namespace sparsefuse {

inline constexpr int64_t kNibbleBlock = 32;  // weights of a filter that share a multiplier

struct PackedFilters {
  int64_t filters = 0, length = 0;   // M, K
  std::vector<int8_t> nibbles;       // [M, K]
  std::vector<uint8_t> multipliers;  // [M, ⌈K/32⌉]
  std::vector<float> scales;         // [M], > 0
  double relative_error = 0;         // √(Σ(w − ŵ)² / Σw²)

  int64_t blocks() const { return (length + kNibbleBlock - 1) / kNibbleBlock; }
  std::vector<int8_t> Codes() const;  // [M, K] multiplier · nibble
};

// rows: [M, K] as ONNX stores filters. Scales and multipliers: those with the least error of
// nearest codes, weighed by the inputs' mean squares. Codes: the nearest; or, with `gram` (H [K,
// K], moments of the inputs in the same order), chosen for the least
//
//   (w − ŵ)ᵀ·(H + λI)·(w − ŵ),
//
// the objective of AdaRound (Nagel et al. 2020): error feedback first, then one code at a time
// moved to its best place given the others until none gains. Does not depend on `threads`.
PackedFilters RoundFilters(std::span<const float> rows, int64_t filters,
                           const Eigen::MatrixXd* gram, int threads);

}  // namespace sparsefuse

#endif  // SPARSEFUSE_PASSES_QUANTIZE_PACKED_FILTERS_H_

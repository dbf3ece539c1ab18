// The chosen units leave their consumers: with the survivors solved anew on what the pruned model
// itself feeds them, block after block (reference §7.3), or as the options were found.

#ifndef SPARSEFUSE_PASSES_PRUNE_RESOLVE_H_
#define SPARSEFUSE_PASSES_PRUNE_RESOLVE_H_

#include <cstdint>
#include <span>
#include <vector>

#include "passes/sensitivity/evidence.h"
#include "passes/sensitivity/prunable.h"

namespace sparsefuse {

struct Choice {
  const Prunable* prunable;
  std::vector<int64_t> kept;  // ascending
};

// How the consumers of removed units change.
enum class Repair {
  kNone,      // the units' rows become zero
  kRefit,     // solved on the original's inputs
  kSequence,  // solved on the student's inputs, anchored at the original's outputs
};

// The evidence's model with all shapes as they were and the removed units' rows zero in every
// consumer.
//
//   W' = (Ĥ_KK + λI)⁻¹ (C_K W + λ W_K),  b' = b + μᵀW − μ̂ᵀW',  C := αC + (1 − α)Ĥ
//
// for α of 1, ½ and 0; taken is what makes the block's output on the select split differ least from
// the original's. Consumers that met fewer than 4 rows of data an input get α = 0.
Model RepairSurvivors(Evidence& evidence, std::span<const Choice> choices, Repair repair);

// A module that is left without units gives a constant: after repair its mean, which is nearest to
// what it gave, but not always best for the answers. Where the last bias as it was costs less KL on
// the select split, it takes the mean's place in `student`. Returns those modules.
std::vector<const Prunable*> PreferLastBiases(Evidence& evidence, std::span<const Choice> choices,
                                              Model& student);

}  // namespace sparsefuse

#endif  // SPARSEFUSE_PASSES_PRUNE_RESOLVE_H_

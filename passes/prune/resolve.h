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
  kSequence,  // solved on the student's inputs, and every later product with them
};

// The evidence's model with all shapes as they were and the removed units' rows zero in every
// consumer. In sequence, consumers and every product after the first of them whose weight is its
// own are solved anew:
//
//   W' = (Ĥ_KK + λI)⁻¹ (Z_K + λ W_K),  b' = z − μ̂ᵀW'
//
// where Z and z are the moments of the output that is wanted: with Ĥ what the student has, with
// αC + (1 − α)Ĥ for α of 1 and ½ the original's, or, where the output is added to a residual
// stream, what brings that stream half or all the way back to the original's. Taken is what makes
// the block's output on the select split differ least from the original's. Later products without
// a bias get none: their moments are about zero. Products that met fewer
// than 4 rows of data an input keep to what the student has.
Model RepairSurvivors(Evidence& evidence, std::span<const Choice> choices, Repair repair);

// A module that is left without units gives a constant: after repair its mean, which is nearest to
// what it gave, but not always best for the answers. Where the last bias as it was costs less KL on
// the select split, it takes the mean's place in `student`. Returns those modules.
std::vector<const Prunable*> PreferLastBiases(Evidence& evidence, std::span<const Choice> choices,
                                              Model& student);

}  // namespace sparsefuse

#endif  // SPARSEFUSE_PASSES_PRUNE_RESOLVE_H_

// Removal that is believed only when the small model answers as the masked one does.

#ifndef SPARSEFUSE_PASSES_PRUNE_VERIFIED_REMOVAL_H_
#define SPARSEFUSE_PASSES_PRUNE_VERIFIED_REMOVAL_H_

#include <optional>
#include <vector>

#include "passes/framework/pass.h"
#include "passes/prune/resolve.h"

namespace sparsefuse {

// `masked` (of RepairSurvivors) without what is chosen, its answers on 4 samples of the select
// split the same within 1e-4. Nullopt: they were not; the choices that alone make a difference have
// left `choices`, with a finding. `structure` is what the choices' modules are of.
std::optional<Model> RemoveVerified(const Model& masked, const Structure& structure,
                                    std::vector<Choice>& choices, const Context& context,
                                    PassStats& stats);

}  // namespace sparsefuse

#endif  // SPARSEFUSE_PASSES_PRUNE_VERIFIED_REMOVAL_H_

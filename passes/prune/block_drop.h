// Residual blocks that go as a whole: y = x + f(x) becomes y = x + c, with c the mean of f(x).
//
// A block belongs to the module whose only consumer is f's last product: with no unit kept, and the
// consumer's bias refitted, f gives c whatever x is (reference §7.2, the last level). So choosing,
// repairing and measuring a block are what they are for units; what is special stands here.

#ifndef SPARSEFUSE_PASSES_PRUNE_BLOCK_DROP_H_
#define SPARSEFUSE_PASSES_PRUNE_BLOCK_DROP_H_

#include <optional>
#include <string>
#include <vector>

#include "passes/engine/engine.h"
#include "passes/framework/context.h"
#include "passes/prune/resolve.h"
#include "passes/sensitivity/prunable.h"

namespace sparsefuse {

struct KeptBlock {
  const Block* block;
  std::string reason;
};

// Sets `block` of the modules (without a reason to stay) that blocks belong to. Between the last
// product and the sum only what is linear in its elements may stand, or the mean would be none of
// f's. Returns the other blocks.
std::vector<KeptBlock> FindDroppable(const Structure& structure, const Context& context,
                                     std::vector<Prunable>& modules);

// The block that goes with the choice; null: units stay.
const Block* GoneBlock(const Choice& choice);

// Takes out what is chosen for modules inside blocks that go.
void EraseInside(std::vector<Choice>& choices);
// Whether a block that goes takes all that reads the module.
bool GoesWithBlock(const Module& module, const std::vector<Choice>& choices);

// Elements that are the same along all axes but one, as a tensor that broadcasts to `values`; []
// where all are the same. Nullopt: they vary along several axes. Of a floating-point type.
std::optional<Tensor> Row(const Tensor& values);

// Removes a block of `masked` (where f is constant) from `removed`, a copy of it; `branch` is what
// f gives there. False: it is not constant, and nothing is removed.
bool DropBlock(Model& removed, const Block& block, const Tensor& branch);

}  // namespace sparsefuse

#endif  // SPARSEFUSE_PASSES_PRUNE_BLOCK_DROP_H_

// Physical removal of what FindStructure found, and the masked model that the result must equal.
//
// Modules and blocks may come from `model` itself or from the model that it is a copy of: nodes and
// values are found by name. The structure's own model must be alive, and unchanged where the copy
// is edited. Of IR version 4 or later (raise-opset), for initializers are added.

#ifndef SPARSEFUSE_PASSES_PRUNE_REMOVAL_H_
#define SPARSEFUSE_PASSES_PRUNE_REMOVAL_H_

#include <cstdint>
#include <span>
#include <vector>

#include "onnx_io/model.h"
#include "passes/analysis/structure.h"
#include "passes/data/dataset.h"
#include "passes/engine/engine.h"

namespace sparsefuse {

// All constants that the removed units run through lose those positions, and every number that says
// how large such an axis is follows: sizes in Reshape, Expand, Split, Slice and their kin, group
// counts. A constant shared with other nodes is not changed for them: the node gets its own. All
// keeps at once, one a module, because several modules can run through one axis: what any of them
// removes goes. Declared types of what is computed from all this lose their shapes. No node is
// deleted, so blocks of the same structure can be removed afterwards. UserError E_UNSUPPORTED
// before opset 11, where a size is computed in a way that cannot be followed.
void RemoveUnits(Model& model, std::span<const Keep> keeps);

// The same function with all shapes as they were: each operand of a product that sums over removed
// units is multiplied by zeros there and by ones elsewhere.
void MaskUnits(Model& model, std::span<const Keep> keeps);

// y = x + f(x) becomes y = x, or y = x + constant, which broadcasts to x: f goes with the weights
// that only it reads. Not for a block inside another one that has gone.
void RemoveBlock(Model& model, const Block& block, const Tensor* constant = nullptr);

// The largest difference of any output that is a tensor on `feeds`, relative to that output's
// largest element in the masked model. Infinite where shapes or types differ or numbers are not
// finite. UserError E_ENGINE if one does not load or run.
double RemovalError(const Model& masked, const Model& removed, const Feeds& feeds,
                    const SessionOptions& options);

}  // namespace sparsefuse

#endif  // SPARSEFUSE_PASSES_PRUNE_REMOVAL_H_

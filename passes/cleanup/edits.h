// Small edits and reports that the cleanup passes share.

#ifndef SPARSEFUSE_PASSES_CLEANUP_EDITS_H_
#define SPARSEFUSE_PASSES_CLEANUP_EDITS_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "onnx_io/model.h"
#include "passes/framework/pass.h"

namespace sparsefuse {

// Before IR version 4 every initializer must be listed as a graph input, so that a pass cannot add
// one: reports that and returns false.
bool CanAddInitializers(const Model& model, PassStats& stats);

// Whether `graph` is a function's body or nested in one: there are no initializers there.
bool InFunction(const Graph& graph);

// Removes a constant (an initializer that is no graph input, or a Constant node) that nothing uses
// any more. Null and other values are left alone.
void RemoveIfUnused(Value* value);

// Input `index` of `node` becomes the constant `tensor`: under the old name where an initializer of
// that shape had only this use, else as a new initializer, named after the old one or after the
// node's output and `role` ("weight", "bias"). Not for function bodies.
void ReplaceConstant(Node& node, size_t index, std::string_view role, Tensor tensor);

// What was done to `count` nodes of one operator: a line for each of 300 would help nobody.
Finding Counted(int64_t count, const std::string& op, std::string action);

}  // namespace sparsefuse

#endif  // SPARSEFUSE_PASSES_CLEANUP_EDITS_H_

// Numbers in the model that say how large axes are. Internal to removal.

#ifndef SPARSEFUSE_PASSES_PRUNE_REMOVAL_SIZES_H_
#define SPARSEFUSE_PASSES_PRUNE_REMOVAL_SIZES_H_

#include <cstdint>
#include <map>
#include <string>

#include "onnx_io/model.h"

namespace sparsefuse {

using Elements = std::map<int64_t, int64_t>;  // position → number

// Replaces a constant's tensor, and what is declared of its shape.
void SetConstant(Value& value, Tensor tensor);

// Elements of an attribute that is an integer (then element 0) or a list.
void SetAttributeElements(Node& node, const std::string& attribute, const Elements& elements);

// Elements of input `index`, a vector of integers. Where other nodes read it too, or where it is
// computed, the node gets its own.
void SetInputElements(Node& node, size_t index, const Elements& elements);

// A Split without sizes makes equal parts: `elements` are new sizes of some, which all had `size`.
void SetEqualSplit(Node& node, int64_t size, const Elements& elements);

}  // namespace sparsefuse

#endif  // SPARSEFUSE_PASSES_PRUNE_REMOVAL_SIZES_H_

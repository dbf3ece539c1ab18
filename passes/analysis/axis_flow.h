// Every axis of every tensor of the main graph as an expression over atoms, by one walk through the
// operators' rules. Names are never used. What has no rule freezes all that it touches.

#ifndef SPARSEFUSE_PASSES_ANALYSIS_AXIS_FLOW_H_
#define SPARSEFUSE_PASSES_ANALYSIS_AXIS_FLOW_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "onnx_io/model.h"
#include "passes/analysis/axis_atoms.h"

namespace sparsefuse {

enum class AxisRole {
  kContractedWithWeight,  // summed over in a product with a weight
  kContracted,            // summed over in a product of two activations
  kProduced,              // made by a product with a weight
  kBatch,                 // runs along both activations of a product
  kBesideSoftmax,         // another axis of a tensor that Softmax normalises
  kConvolved,             // one of the above, in a convolution
  kJoined,                // of a sum of activations that different products made
};

struct AxisEvent {
  AxisRole role;
  const Node* node;
  AxisId axis;
};

// A number in the model that says how large an axis is, and must follow when it shrinks: element
// `element` of input `input`, or of the attribute where that is not empty. An absent input (Split's
// sizes) means equal parts. `from_end`: written as minus the size (Slice).
struct SizeUse {
  const Node* node;
  size_t input;
  std::string attribute;
  int64_t element;
  AxisId axis;
  bool from_end = false;
};

struct AxisFlow {
  AxisAtoms atoms;
  // Values of the main graph whose rank is known; constants only where something reads them.
  std::unordered_map<const Value*, std::vector<AxisId>> axes;
  std::vector<AxisEvent> events;  // in topological order
  std::vector<SizeUse> sizes;
  std::unordered_set<const Value*> dynamic;  // depends on a graph input: activations and shapes

  bool IsWeight(const Value* value) const { return value && !dynamic.count(value); }
};

// `model` must outlive the result. UserError E_MODEL only for a cyclic graph.
AxisFlow TraceAxes(const Model& model);

}  // namespace sparsefuse

#endif  // SPARSEFUSE_PASSES_ANALYSIS_AXIS_FLOW_H_

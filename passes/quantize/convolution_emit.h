// Rewrites a graph as a plan says: QuantizeLinear and DequantizeLinear around the operators, in the
// forms that ONNX Runtime fuses to its 8-bit ones. Standard operators only.

#ifndef SPARSEFUSE_PASSES_QUANTIZE_CONVOLUTION_EMIT_H_
#define SPARSEFUSE_PASSES_QUANTIZE_CONVOLUTION_EMIT_H_

#include <map>
#include <string>
#include <vector>

#include "passes/quantize/activation_ranges.h"
#include "passes/quantize/convolution_plan.h"
#include "passes/quantize/filter_cache.h"

namespace sparsefuse {

struct EmitOptions {
  bool pad_channels = false;                              // where CanPadChannels
  std::map<std::string, std::vector<float>> corrections;  // product's key → added to its bias [M]
};

struct EmittedProduct {
  std::string key;     // of the product that it replaces
  std::string output;  // name of its float output, before quantisation
};

struct Emission {
  std::vector<EmittedProduct> products;  // in topological order
  int64_t nodes_added = 0, nodes_removed = 0;
};

// `codes`: one for each group of the plan. The plan must be of this model and is spent: its nodes
// are gone afterwards.
Emission EmitConvolutions(Model& model, const ConvolutionPlan& plan,
                          const std::vector<ActivationCode>& codes, FilterCache& filters,
                          const EmitOptions& options);

}  // namespace sparsefuse

#endif  // SPARSEFUSE_PASSES_QUANTIZE_CONVOLUTION_EMIT_H_

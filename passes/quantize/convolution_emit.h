// Rewrites a graph as a plan says: QuantizeLinear and DequantizeLinear around the operators, in the
// forms that ONNX Runtime fuses to its 8-bit ones. Standard operators only.

#ifndef SPARSEFUSE_PASSES_QUANTIZE_CONVOLUTION_EMIT_H_
#define SPARSEFUSE_PASSES_QUANTIZE_CONVOLUTION_EMIT_H_

#include <map>
#include <string>
#include <vector>

#include "passes/quantize/activation_ranges.h"
#include "passes/quantize/convolution_plan.h"
#include "passes/quantize/convolution_weights.h"

namespace sparsefuse {

// Quantised filters by product and number of stored channels, so that variants of one model
// quantise each once.
class FilterCache {
 public:
  FilterCache(PairBound bound, int threads) : bound_(bound), threads_(threads) {}

  // The product's weight as rows [M, K] in reduction order, `channels` of each filter stored (zeros
  // beyond its own).
  static std::vector<float> Rows(const Node& product, int64_t channels);
  // Depthwise filters need no pair bound: their kernel adds in 32 bits.
  PairBound BoundOf(const Node& product) const;

  const QuantizedFilters& Get(const Node& product, int64_t channels);

 private:
  PairBound bound_;
  int threads_;
  std::map<std::pair<std::string, int64_t>, QuantizedFilters> filters_;
};

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

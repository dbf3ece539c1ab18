// The ways to quantise the convolutions of one model that are worth measuring.

#ifndef SPARSEFUSE_PASSES_QUANTIZE_CONVOLUTION_VARIANTS_H_
#define SPARSEFUSE_PASSES_QUANTIZE_CONVOLUTION_VARIANTS_H_

#include <set>
#include <string>
#include <vector>

#include "passes/quantize/convolution_plan.h"

namespace sparsefuse {

struct ConvolutionVariant {
  std::string name;
  std::set<std::string> keep_float;  // keys of nodes
  bool pad_channels = false;
};

// "all" first. Each later one differs from those before it in what it codes. `all`: the plan
// without `keep_float` beyond `always_float`.
//
//   all              every node of the plan
//   padded           the first convolution reads its 4n+3 channels as 4n+4
//   first-float      the first convolution in float
//   ends-float       the first convolution, and pooling and Gemm after the last one
//   depthwise-float  depthwise convolutions in float
//   dense            only convolutions of at least 64 products a sum, not depthwise
std::vector<ConvolutionVariant> ListVariants(Graph& graph, const Context& context,
                                             const std::set<std::string>& always_float);

inline constexpr std::string_view kNoVariant = "none";  // in decisions: all in float

}  // namespace sparsefuse

#endif  // SPARSEFUSE_PASSES_QUANTIZE_CONVOLUTION_VARIANTS_H_

// The linear layers and embedding tables of a model to int8.

#ifndef SPARSEFUSE_PASSES_QUANTIZE_QUANTIZE_LINEAR_H_
#define SPARSEFUSE_PASSES_QUANTIZE_QUANTIZE_LINEAR_H_

#include "passes/framework/pass.h"
#include "passes/quantize/linear_weights.h"

namespace sparsefuse {

struct LinearOptions {
  PairBound bound = PairBound::kAvx2;
  bool bias_correction = true;
  bool embeddings = true;
};

// Plans, measures (unless context.measure is off or there is no data), rewrites in place and
// reports. Choices go to, or come from, context.decisions["quantize"]["linear"].
void QuantizeLinearLayers(Model& model, Context& context, const LinearOptions& options,
                          PassStats& stats);

}  // namespace sparsefuse

#endif  // SPARSEFUSE_PASSES_QUANTIZE_QUANTIZE_LINEAR_H_

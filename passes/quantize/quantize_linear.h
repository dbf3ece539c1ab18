// The linear layers and embedding tables of a model to int8, int4 or int4 inside int8.

#ifndef SPARSEFUSE_PASSES_QUANTIZE_QUANTIZE_LINEAR_H_
#define SPARSEFUSE_PASSES_QUANTIZE_QUANTIZE_LINEAR_H_

#include "passes/framework/pass.h"
#include "passes/quantize/linear_sequence.h"
#include "passes/quantize/linear_widths.h"

namespace sparsefuse {

struct LinearOptions {
  PairBound bound = PairBound::kAvx2;
  bool embeddings = true;
  WidthOptions widths;
  SequenceOptions sequence;
  FeedbackUse feedback = FeedbackUse::kMeasured;
  bool smooth = true;
  double share8 = 0.5;         // of nested weights (rounding.h)
  double gate_share = 0;       // of the rows that nested weights are to read in 4 bits
  double max_flips = 1;        // share of answers that the gate may change
  int64_t scale_inputs = 512;  // that share a scale, of int4 and nested; a multiple of 64
  int64_t block = 128;         // the same of MatMulNBits
  bool fail_on_nonfinite = false;
};

// Plans, measures (unless context.measure is off or there is no data), rewrites in place and
// reports. Choices by timing go to, or come from, context.decisions["quantize"]["linear"].
// UserError E_MODEL naming the tensor: NaN or infinity among weights, if they are to be refused.
void QuantizeLinearLayers(Model& model, Context& context, const LinearOptions& options,
                          PassStats& stats);

}  // namespace sparsefuse

#endif  // SPARSEFUSE_PASSES_QUANTIZE_QUANTIZE_LINEAR_H_

// The convolutions of a model to static int8 (QDQ), with what lies between them.

#ifndef SPARSEFUSE_PASSES_QUANTIZE_CONVOLUTION_H_
#define SPARSEFUSE_PASSES_QUANTIZE_CONVOLUTION_H_

#include <set>
#include <string>

#include "passes/framework/pass.h"
#include "passes/quantize/linear_weights.h"

namespace sparsefuse {

struct ConvolutionOptions {
  PairBound bound = PairBound::kAvx2;
  bool bias_correction = true;
  bool packed = false;         // filters in 4 bits (packed_filters.h)
  bool search = true;          // then their codes are searched for
  std::set<std::string> int8;  // keys of products whose filters stay in 8 bits all the same
};

// Plans, calibrates on the fit split, chooses by measurement which nodes compute in int8 and on the
// select split how, and rewrites the main graph in place. Convolutions that compute in float all
// the same (measured slower in int8, no calibration data) store int8 filters. Every Conv and
// ConvTranspose is reported: what was done, or why nothing. The measured choice goes to, or comes
// from, context.decisions["quantize"]["convolution"].
void QuantizeConvolutions(Model& model, Context& context, const ConvolutionOptions& options,
                          PassStats& stats);

}  // namespace sparsefuse

#endif  // SPARSEFUSE_PASSES_QUANTIZE_CONVOLUTION_H_

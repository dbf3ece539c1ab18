// Bias correction: what quantisation shifts on average in each output channel of a product is added
// back to its bias, in topological order, so that each correction sees the corrected layers before
// it. Source: Nagel et al. 2019, "Data-free quantization through weight equalization and bias
// correction", section 4.2 (the empirical form).

#ifndef SPARSEFUSE_PASSES_QUANTIZE_BIAS_CORRECTION_H_
#define SPARSEFUSE_PASSES_QUANTIZE_BIAS_CORRECTION_H_

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "passes/framework/context.h"
#include "passes/quantize/convolution_emit.h"

namespace sparsefuse {

// The quantised model under the given corrections.
struct Candidate {
  Model model;
  std::vector<EmittedProduct> products;
};
using Corrections = std::map<std::string, std::vector<float>>;  // product's key → [M]
using Quantise = std::function<Candidate(const Corrections&)>;

// `reference`: the float model, whose products are found by their keys. Runs the quantised model
// once a product, on as many calibration samples as keep that affordable.
Corrections CorrectBiases(const Model& reference, const Quantise& quantise, const Context& context);

// Samples for `products` runs of a model with `macs` multiply-adds a sample: all if that is at most
// kCorrectionMacs, but at least kFewestCorrectionSamples.
int64_t CorrectionSamples(int64_t available, size_t products, double macs);
inline constexpr double kCorrectionMacs = 2e12;
inline constexpr int64_t kFewestCorrectionSamples = 16;

}  // namespace sparsefuse

#endif  // SPARSEFUSE_PASSES_QUANTIZE_BIAS_CORRECTION_H_

// Cross-layer equalisation: channels of a tensor between convolutions are brought to similar
// ranges, so that one scale suits them all. If only convolutions read t = relu(conv(x)), then
//   t'[c] = t[c] / s[c]:   W[c,…] and b[c] of the producer divided by s[c],
//                          W[·,c,…] of the readers multiplied by it
// gives the same outputs up to rounding, since relu(a·x) = a·relu(x) for a > 0.
// Source: Nagel et al. 2019, section 4.1, with measured ranges in place of the weights'.

#ifndef SPARSEFUSE_PASSES_QUANTIZE_EQUALIZATION_H_
#define SPARSEFUSE_PASSES_QUANTIZE_EQUALIZATION_H_

#include <set>
#include <span>
#include <string>
#include <vector>

#include "passes/framework/context.h"

namespace sparsefuse {

// Rescales in place the main graph's convolutions, except those with a key (KeyOf) in `untouched`.
// Ranges come from the calibration samples. Returns the number of tensors equalised; 0: unchanged.
int EqualizeChannels(Model& model, const std::set<std::string>& untouched, const Context& context);

// s[c] for channels with largest magnitudes m[c]: (m[c]/max m)^strength, at least 1/32. strength is
// 1 where the readers are depthwise, whose filters have a scale each, else 1/2, which shares the
// range between the tensor and the readers' weights.
std::vector<float> EqualizingFactors(std::span<const float> magnitudes, double strength);

}  // namespace sparsefuse

#endif  // SPARSEFUSE_PASSES_QUANTIZE_EQUALIZATION_H_

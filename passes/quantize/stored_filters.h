// Filters stored as int8 for convolutions that compute in float: Cast and Mul by the channel's
// scale, which ONNX Runtime folds to a constant at load. A quarter of the bytes at float's speed.

#ifndef SPARSEFUSE_PASSES_QUANTIZE_STORED_FILTERS_H_
#define SPARSEFUSE_PASSES_QUANTIZE_STORED_FILTERS_H_

#include <set>
#include <string>
#include <vector>

#include "passes/quantize/convolution_emit.h"

namespace sparsefuse {

// `keys`: Conv and Gemm nodes of the main graph with finite float constants as weights. Returns
// those whose weight is stored as int8 now; the others' weights are too small to gain, or are read
// by something else too.
std::set<std::string> StoreFilters(Model& model, const std::set<std::string>& keys,
                                   FilterCache& filters);

}  // namespace sparsefuse

#endif  // SPARSEFUSE_PASSES_QUANTIZE_STORED_FILTERS_H_

// Weights of layers that compute in float, stored as int8, or filters in 4 bits: W =
// Cast(codes)·scale, which ONNX Runtime folds to the same float constant once, when it loads the
// model. The file shrinks as with integers; speed is float's.

#ifndef SPARSEFUSE_PASSES_QUANTIZE_STORAGE_H_
#define SPARSEFUSE_PASSES_QUANTIZE_STORAGE_H_

#include <set>
#include <string>

#include "passes/framework/pass.h"

namespace sparsefuse {

inline constexpr int64_t kMinStoredElements = 1024;

// Every constant float weight of MatMul, Gemm, Conv and ConvTranspose in the main graph that is
// left, one scale an output. Excluded nodes keep theirs, and so do weights that something else
// reads, too. `packed`: keys of the Conv whose filters are stored in 4 bits (packed_filters.h),
// their codes searched for or not.
void StoreFloatWeights(Model& model, const Context& context, const std::set<std::string>& packed,
                       bool search, PassStats& stats);

}  // namespace sparsefuse

#endif  // SPARSEFUSE_PASSES_QUANTIZE_STORAGE_H_

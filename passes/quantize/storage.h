// Weights of layers that compute in float, stored as int8: W = Cast(codes)·scale, which ONNX
// Runtime folds to the same float constant once, when it loads the model. The file shrinks as with
// int8; speed is float's.

#ifndef SPARSEFUSE_PASSES_QUANTIZE_STORAGE_H_
#define SPARSEFUSE_PASSES_QUANTIZE_STORAGE_H_

#include "passes/framework/pass.h"

namespace sparsefuse {

inline constexpr int64_t kMinStoredElements = 1024;

// Every constant float weight of MatMul, Gemm, Conv and ConvTranspose in the main graph that is
// left, one scale an output. Excluded nodes keep theirs, and so do weights that something else
// reads, too.
void StoreFloatWeights(Model& model, const Context& context, PassStats& stats);

}  // namespace sparsefuse

#endif  // SPARSEFUSE_PASSES_QUANTIZE_STORAGE_H_

// The cleanup passes, for the registry.

#ifndef SPARSEFUSE_PASSES_CLEANUP_PASSES_H_
#define SPARSEFUSE_PASSES_CLEANUP_PASSES_H_

#include "passes/framework/pass.h"

namespace sparsefuse {

extern const PassInfo kRaiseOpset;
extern const PassInfo kFoldConstants;
extern const PassInfo kFoldBatchNorm;
extern const PassInfo kFoldMasks;
extern const PassInfo kRemoveDead;
extern const PassInfo kDecompose;

}  // namespace sparsefuse

#endif  // SPARSEFUSE_PASSES_CLEANUP_PASSES_H_

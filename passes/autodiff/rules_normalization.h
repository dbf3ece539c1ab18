// Rules of softmax and of normalisations. x̂ is recomputed: the operators' optional outputs are
// missing in most files.

#ifndef SPARSEFUSE_PASSES_AUTODIFF_RULES_NORMALIZATION_H_
#define SPARSEFUSE_PASSES_AUTODIFF_RULES_NORMALIZATION_H_

#include "passes/autodiff/vjp.h"

namespace sparsefuse {

void GradSoftmax(Vjp& v);
void GradLogSoftmax(Vjp& v);
void GradLayerNormalization(Vjp& v);
void GradRmsNormalization(Vjp& v);  // also SimplifiedLayerNormalization
void GradInstanceNormalization(Vjp& v);
void GradBatchNormalization(Vjp& v);

}  // namespace sparsefuse

#endif  // SPARSEFUSE_PASSES_AUTODIFF_RULES_NORMALIZATION_H_

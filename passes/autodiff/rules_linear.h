// Rules of matrix products.

#ifndef SPARSEFUSE_PASSES_AUTODIFF_RULES_LINEAR_H_
#define SPARSEFUSE_PASSES_AUTODIFF_RULES_LINEAR_H_

#include "passes/autodiff/vjp.h"

namespace sparsefuse {

void GradMatMul(Vjp& v);
void GradGemm(Vjp& v);

}  // namespace sparsefuse

#endif  // SPARSEFUSE_PASSES_AUTODIFF_RULES_LINEAR_H_

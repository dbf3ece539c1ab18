// Rules of operators that work on each element alone, broadcasting included.

#ifndef SPARSEFUSE_PASSES_AUTODIFF_RULES_ELEMENTWISE_H_
#define SPARSEFUSE_PASSES_AUTODIFF_RULES_ELEMENTWISE_H_

#include "passes/autodiff/vjp.h"

namespace sparsefuse {

// Of two or more inputs.
void GradAdd(Vjp& v);  // also Sum
void GradSub(Vjp& v);
void GradMul(Vjp& v);
void GradDiv(Vjp& v);
void GradPow(Vjp& v);
void GradExtremum(Vjp& v);  // Min, Max
void GradAverage(Vjp& v);   // Mean
void GradWhere(Vjp& v);
void GradPRelu(Vjp& v);

// Of one.
void GradIdentity(Vjp& v);
void GradDropout(Vjp& v);
void GradCast(Vjp& v);
void GradNeg(Vjp& v);
void GradAbs(Vjp& v);
void GradReciprocal(Vjp& v);
void GradSqrt(Vjp& v);
void GradExp(Vjp& v);
void GradLog(Vjp& v);
void GradSin(Vjp& v);
void GradCos(Vjp& v);
void GradErf(Vjp& v);

// Activations.
void GradTanh(Vjp& v);
void GradSigmoid(Vjp& v);
void GradRelu(Vjp& v);
void GradLeakyRelu(Vjp& v);
void GradElu(Vjp& v);
void GradSoftplus(Vjp& v);
void GradClip(Vjp& v);
void GradHardSigmoid(Vjp& v);
void GradHardSwish(Vjp& v);
void GradMish(Vjp& v);
void GradGelu(Vjp& v);       // also com.microsoft.Gelu
void GradFastGelu(Vjp& v);   // com.microsoft.FastGelu
void GradQuickGelu(Vjp& v);  // com.microsoft.QuickGelu

}  // namespace sparsefuse

#endif  // SPARSEFUSE_PASSES_AUTODIFF_RULES_ELEMENTWISE_H_

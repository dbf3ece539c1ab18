// Rules of operators that move elements, and of reductions.

#ifndef SPARSEFUSE_PASSES_AUTODIFF_RULES_SHAPE_H_
#define SPARSEFUSE_PASSES_AUTODIFF_RULES_SHAPE_H_

#include "passes/autodiff/vjp.h"

namespace sparsefuse {

void GradReshape(Vjp& v);  // also Flatten
void GradSqueeze(Vjp& v);
void GradUnsqueeze(Vjp& v);
void GradTranspose(Vjp& v);
void GradConcat(Vjp& v);
void GradSplit(Vjp& v);
void GradExpand(Vjp& v);
void GradTrilu(Vjp& v);
void GradSlice(Vjp& v);
void GradPad(Vjp& v);
void GradGather(Vjp& v);
void GradGatherElements(Vjp& v);
void GradMoved(Vjp& v);  // GatherND, Tile: whatever copies elements of input 0
void GradResize(Vjp& v);
void GradTopK(Vjp& v);
void GradCumSum(Vjp& v);

void GradReduceSum(Vjp& v);
void GradReduceMean(Vjp& v);
void GradReduceExtremum(Vjp& v);  // ReduceMax, ReduceMin
void GradReduceL2(Vjp& v);
void GradReduceSumSquare(Vjp& v);
void GradReduceLogSumExp(Vjp& v);

}  // namespace sparsefuse

#endif  // SPARSEFUSE_PASSES_AUTODIFF_RULES_SHAPE_H_

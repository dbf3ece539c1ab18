// How far a changed model's answers are from the original's, on the select split.

#ifndef SPARSEFUSE_PASSES_SENSITIVITY_SELECT_KL_H_
#define SPARSEFUSE_PASSES_SENSITIVITY_SELECT_KL_H_

#include <vector>

#include "passes/framework/context.h"
#include "passes/sensitivity/answer_output.h"
#include "passes/statistics/batches.h"

namespace sparsefuse {

class SelectKl {
 public:
  // Runs `teacher` on at most 64 samples of the select split (fewer where their answers exceed 256
  // MiB) and keeps its answers. Needs context.calibration, which must outlive this.
  SelectKl(const Model& teacher, const Context& context);

  // KL(teacher ‖ student) per answer, in nats; of outputs without classes half the squared error
  // over the answers' energy. Infinity where the student's are not finite or of another shape. The
  // same for any number of threads.
  double Of(const Model& student) const;

  const Batches& batches() const { return batches_; }

 private:
  const Context& context_;
  AnswerOutput output_;
  Batches batches_;
  std::vector<Tensor> answers_;  // one a batch
};

}  // namespace sparsefuse

#endif  // SPARSEFUSE_PASSES_SENSITIVITY_SELECT_KL_H_

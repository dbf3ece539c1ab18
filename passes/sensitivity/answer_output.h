// The output that losses are about: of a model with several, the one that answers.

#ifndef SPARSEFUSE_PASSES_SENSITIVITY_ANSWER_OUTPUT_H_
#define SPARSEFUSE_PASSES_SENSITIVITY_ANSWER_OUTPUT_H_

#include <cstdint>
#include <span>
#include <string>

#include "onnx_io/model.h"
#include "passes/data/metrics.h"
#include "passes/framework/context.h"

namespace sparsefuse {

struct AnswerOutput {
  std::string name;
  Dims dims;          // of a run of `batch` samples
  int64_t batch = 1;  // the data's fixed batch, or 1
  OutputKind kind = OutputKind::kLogits;
  bool classes = false;  // the last axis holds the classes of an answer
  double answers = 1;    // of one sample: tokens, or 1

  int64_t elements_per_sample() const;
};

// The first floating output with at least 2 classes, else the first floating one, as it shows in a
// run of the first of `samples`. UserError E_UNSUPPORTED: there is none.
AnswerOutput FindAnswerOutput(const Model& model, const Context& context,
                              std::span<const int64_t> samples);

}  // namespace sparsefuse

#endif  // SPARSEFUSE_PASSES_SENSITIVITY_ANSWER_OUTPUT_H_

#include "passes/sensitivity/answer_output.h"

#include <algorithm>
#include <vector>

#include "passes/engine/engine.h"

namespace sparsefuse {

int64_t AnswerOutput::elements_per_sample() const { return *ElementCount(dims) / batch; }

AnswerOutput FindAnswerOutput(const Model& model, const Context& context,
                              std::span<const int64_t> samples) {
  const Dataset& data = *context.calibration;
  AnswerOutput output;
  output.batch = std::max<int64_t>(1, data.fixed_batch());
  const Session session(model, {.threads = 1, .operator_library = context.operator_library});
  const std::vector<Tensor> results =
      session.Run(data.Gather(samples.first(static_cast<size_t>(output.batch))));
  for (size_t i = 0; i < results.size(); ++i) {
    if (!IsFloating(results[i].dtype())) continue;
    const bool classes = results[i].rank() > 1 && results[i].dims().back() > 1;
    if (!output.name.empty() && (output.classes || !classes)) continue;
    output.name = session.outputs()[i].name;
    output.dims = results[i].dims();
    output.classes = classes;
    output.answers = static_cast<double>(results[i].size()) / static_cast<double>(output.batch) /
                     static_cast<double>(classes ? results[i].dims().back() : 1);
    if (classes) output.kind = DetectOutputKind(results[i]);
  }
  if (output.name.empty()) {
    throw UserError(ErrorCode::kUnsupported, "the model has no floating-point output")
        .InFile(model.source);
  }
  return output;
}

}  // namespace sparsefuse

// How a linear layer is computed, chosen by measuring each form of each distinct shape on this
// machine.

#ifndef SPARSEFUSE_PASSES_QUANTIZE_LINEAR_FORMS_H_
#define SPARSEFUSE_PASSES_QUANTIZE_LINEAR_FORMS_H_

#include <map>
#include <string>
#include <vector>

#include "passes/framework/context.h"
#include "passes/quantize/linear.h"

namespace sparsefuse {

enum class LinearForm {
  kFloat,     // left as it is
  kCustom,    // QuantizedLinear8
  kStandard,  // the same in standard operators
};
std::string_view FormName(LinearForm form);  // "float", "custom", "standard"

struct LinearChoice {
  LinearForm form = LinearForm::kFloat;
  double speedup = 0;  // over float, geometric mean over the batches; 0: not measured
};

inline constexpr double kSmallestGain = 1.03;  // below, a layer stays in float

// One choice a layer. shapes[b][i]: the shape of layer i's X in the b-th batch size. Layers of
// equal shapes are timed once: fp32, standard and (unless context.emit forbids) custom, interleaved
// in one thread.
std::vector<LinearChoice> MeasureForms(const Model& model, const std::vector<LinearLayer>& layers,
                                       const std::vector<std::vector<Dims>>& shapes,
                                       const Context& context);

}  // namespace sparsefuse

#endif  // SPARSEFUSE_PASSES_QUANTIZE_LINEAR_FORMS_H_

// How a linear layer is computed, chosen by its times on this machine.

#ifndef SPARSEFUSE_PASSES_QUANTIZE_LINEAR_FORMS_H_
#define SPARSEFUSE_PASSES_QUANTIZE_LINEAR_FORMS_H_

#include <string>
#include <string_view>
#include <vector>

#include "passes/framework/context.h"
#include "passes/latency/layer_form.h"
#include "passes/quantize/linear.h"

namespace sparsefuse {

enum class LinearForm {
  kFloat,     // left as it is
  kStandard,  // dynamic int8 in standard operators
  kCustom,    // QuantizedLinear8
};
std::string_view FormName(LinearForm form);  // "float", "standard", "custom"

// What the latency table is asked for, in the order of LinearForm: all three, or without kCustom.
std::vector<LayerForm> Int8Forms(Emit emit);

struct LinearChoice {
  LinearForm form = LinearForm::kFloat;
  double speedup = 0;     // of the fastest int8 form over float, geometric mean over the batches;
                          // 0: not measured
  double over_other = 0;  // of the same over the other int8 form; 0: there is none
};

// "custom, ×2.10 over fp32, ×1.12 over standard int8", as far as it was measured.
std::string Describe(const LinearChoice& choice);

// One choice a layer, from the latency table of this machine for one thread. shapes[b][i]: the
// shape of layer i's X in the b-th batch size.
std::vector<LinearChoice> ChooseLinearForms(const std::vector<LinearLayer>& layers,
                                            const std::vector<std::vector<Dims>>& shapes,
                                            const Context& context);

}  // namespace sparsefuse

#endif  // SPARSEFUSE_PASSES_QUANTIZE_LINEAR_FORMS_H_

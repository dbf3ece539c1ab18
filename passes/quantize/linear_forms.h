// How a linear layer is computed, chosen by its times on this machine.

#ifndef SPARSEFUSE_PASSES_QUANTIZE_LINEAR_FORMS_H_
#define SPARSEFUSE_PASSES_QUANTIZE_LINEAR_FORMS_H_

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "passes/framework/context.h"
#include "passes/latency/layer_form.h"
#include "passes/quantize/linear.h"

namespace sparsefuse {

enum class LinearForm {
  kFloat,     // left as it is
  kStandard,  // dynamic int8 in standard operators, or MatMulNBits
  kCustom,    // this tool's operator
};
std::string_view FormName(LinearForm form);  // "float", "standard", "custom"

// What the latency table is asked for about dense int8, in the order of LinearForm: all three, or
// without kCustom.
std::vector<LayerForm> Int8Forms(Emit emit);

// What a layer's weight becomes, as far as speed is concerned.
struct WeightForm {
  Encoding encoding = Encoding::kInt8;
  double density = 1;  // share of the quads that would be stored without zero blocks; 1: none
};

struct LinearChoice {
  LinearForm form = LinearForm::kFloat;
  bool sparse = false;     // kCustom: without its zero blocks
  double speedup = 0;      // of the fastest quantised form over float, geometric mean over the
                           // batches; 0: not measured
  double over_other = 0;   // of the same over the next quantised form; 0: there is none
  std::string other = {};  // that one: "standard int8", "the dense operator", …
};

// "custom, ×2.10 over fp32, ×1.12 over standard int8", as far as it was measured.
std::string Describe(const LinearChoice& choice);
// As a recorded decision, and back.
nlohmann::json ToJson(const LinearChoice& choice);
LinearChoice ReadChoice(const nlohmann::json& decision, LinearChoice otherwise);

// What is taken where nothing is measured: always quantised.
LinearChoice UnmeasuredChoice(const WeightForm& kind, Emit emit);

// One choice a layer, from the latency table of this machine for one thread. shapes[b][i]: the
// shape of layer i's X in the b-th batch size. int8 has to be faster than float; what is narrower
// was asked for because of its size and is only told how fast it is.
std::vector<LinearChoice> ChooseLinearForms(const std::vector<LinearLayer>& layers,
                                            const std::vector<WeightForm>& kinds,
                                            const std::vector<std::vector<Dims>>& shapes,
                                            const Context& context);

}  // namespace sparsefuse

#endif  // SPARSEFUSE_PASSES_QUANTIZE_LINEAR_FORMS_H_

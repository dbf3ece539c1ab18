// How many rows the gates of a model may send to the 4-bit reading: as many as are wanted, fewer if
// that changes more of the model's answers than it may.

#ifndef SPARSEFUSE_PASSES_QUANTIZE_GATE_SHARE_H_
#define SPARSEFUSE_PASSES_QUANTIZE_GATE_SHARE_H_

#include <string>
#include <vector>

#include "passes/framework/pass.h"
#include "passes/quantize/gate.h"

namespace sparsefuse {

// A layer whose operator has been emitted with a gate.
struct GatedLayer {
  std::string output;  // of the operator
  const FittedGate* gate;
};

// Sets the thresholds in `model`: of `share`, ¾, ½ and ¼ of it the first at which at most
// `max_flips` of the answers on the select split differ from the 8-bit reading's; if none does, no
// row is ever easy. Every row is gated for that, as when tokens are decoded one by one. Returns
// what was found. Needs context.calibration and the operator library.
Finding ChooseGateShare(Model& model, const std::vector<GatedLayer>& layers, double share,
                        double max_flips, const Context& context);

}  // namespace sparsefuse

#endif  // SPARSEFUSE_PASSES_QUANTIZE_GATE_SHARE_H_

#include "passes/quantize/gate_share.h"

#include <fmt/format.h>

#include <algorithm>

#include "kernels/linear/gate.h"
#include "passes/engine/evaluate.h"

namespace sparsefuse {
namespace {

constexpr size_t kGateInput = 5;  // of nested operators (docs/formats.md)
constexpr size_t kThreshold = 2;  // τ's place in it
constexpr size_t kMostGateSamples = 128;
constexpr double kShares[] = {1, 0.75, 0.5, 0.25};

void SetGates(Model& model, const std::vector<GatedLayer>& layers, double share) {
  for (const GatedLayer& layer : layers) {
    Value* gate = model.graph().FindValue(layer.output)->producer()->input(kGateInput);
    std::vector<float> values = layer.gate->gate;
    if (share > 0) {
      values[kThreshold] = GateThreshold(layer.gate->estimates, share);
    } else {
      values.assign(static_cast<size_t>(kGateHeader), 0);  // never
    }
    gate->set_initializer(Tensor::Of({static_cast<int64_t>(values.size())}, values));
  }
}

}  // namespace

Finding ChooseGateShare(Model& model, const std::vector<GatedLayer>& layers, double share,
                        double max_flips, const Context& context) {
  const auto session = [&](std::string gate) {
    return Session(model, {.threads = context.threads,
                           .operator_library = context.operator_library,
                           .gate = std::move(gate)});
  };
  std::vector<int64_t> samples = context.splits.select;
  if (samples.size() > kMostGateSamples) samples.resize(kMostGateSamples);
  const Session reference = session("off");
  double flips = 0;
  for (const double part : kShares) {
    SetGates(model, layers, share * part);
    flips = 1 - CompareModels(reference, session("always"), *context.calibration, samples)
                    .main()
                    .Agreement();
    if (flips > max_flips) continue;
    return {.subject = "model",
            .op = "",
            .action = fmt::format("gate: {:.0f} % of the rows of {} layers read in 4 bits when at "
                                  "most 8 come at a time; changes {:.1f} % of the answers",
                                  100 * share * part, layers.size(), 100 * flips),
            .reason = ""};
  }
  SetGates(model, layers, 0);
  return {.subject = "model",
          .op = "",
          .action = "",
          .reason = fmt::format("gate: even {:.0f} % of the rows in 4 bits change {:.1f} % of the "
                                "answers, more than max_flips {:.1f} %",
                                100 * share * kShares[std::size(kShares) - 1], 100 * flips,
                                100 * max_flips)};
}

}  // namespace sparsefuse

#include "passes/quantize/linear_forms.h"

#include <fmt/format.h>

#include <cmath>
#include <tuple>

#include "passes/engine/engine.h"
#include "passes/lower/linear.h"
#include "passes/quantize/linear_weights.h"

namespace sparsefuse {
namespace {

// The same layer several times over with its own weights, reading one X: the fixed cost of a run
// weighs less, as it does in a whole model.
constexpr int kCopies = 4;

struct Case {
  int64_t inputs, outputs;
  bool bias;
  std::vector<Dims> shapes;  // of X, one a batch size
  auto operator<=>(const Case&) const = default;
};

// Deterministic values in [−1, 1): only timing depends on them.
std::vector<float> Values(int64_t count) {
  std::vector<float> values(static_cast<size_t>(count));
  uint32_t state = 12345;
  for (float& v : values) {
    state = state * 1664525u + 1013904223u;
    v = static_cast<float>(static_cast<int32_t>(state)) * 0x1p-31f;
  }
  return values;
}

Model LayerModel(const Case& layer, LinearForm form, int64_t opset, const Dims& shape) {
  Model model;
  model.ir_version = 8;
  model.opset_imports[""] = opset;
  Graph& graph = model.graph();
  ValueType type{.dtype = DType::kFloat, .has_shape = true, .dims = {}};
  for (int64_t d : shape) type.dims.emplace_back(d);
  Value* x = graph.AddGraphInput("x", type);
  const std::vector<float> rows = Values(layer.inputs * layer.outputs);
  const std::vector<float> bias = layer.bias ? Values(layer.outputs) : std::vector<float>{};
  const QuantizedWeight weight =
      QuantizeLinearWeight(rows, layer.inputs, layer.outputs, {}, PairBound::kAvx2, 1);
  for (int copy = 0; copy < kCopies; ++copy) {
    Builder builder(graph);  // one a copy, so that copies share no constants
    if (form == LinearForm::kFloat) {
      Value* w = graph.AddInitializer(graph.FreshName("w"),
                                      Tensor::Of<float>({layer.inputs, layer.outputs}, rows));
      Value* y = builder.Op("MatMul", {x, w});
      if (layer.bias) {
        y = builder.Op("Add", {y, builder.Constant(Tensor::Of<float>({layer.outputs}, bias))});
      }
      graph.AddGraphOutput(y);
      continue;
    }
    Value* y = builder.Op("Identity", {x});  // its output is taken over below
    Node* placeholder = y->producer();
    graph.AddGraphOutput(y);
    if (form == LinearForm::kCustom) {
      EmitLinear(model, builder, x, StoreLayout1(builder, weight), weight, bias, Activation::kNone,
                 y);
    } else {
      EmitStandardLinear8(builder, x, nullptr, weight, bias, y);
    }
    graph.RemoveNode(placeholder);
  }
  return model;
}

LinearChoice Measure(const Case& layer, int64_t opset, const Context& context) {
  std::vector<LinearForm> forms = {LinearForm::kFloat, LinearForm::kStandard};
  if (context.emit == Emit::kCustom) forms.push_back(LinearForm::kCustom);
  SessionOptions options;
  options.operator_library = context.operator_library;
  std::vector<double> log_speedup(forms.size());
  for (const Dims& shape : layer.shapes) {
    std::vector<Session> sessions;
    for (LinearForm form : forms) {
      sessions.emplace_back(LayerModel(layer, form, opset, shape), options);
    }
    std::vector<const Session*> pointers;
    for (const Session& session : sessions) pointers.push_back(&session);
    const Tensor x = Tensor::Of<float>(shape, Values(*ElementCount(shape)));
    const TimingOptions timing{.warmup = 2, .min_runs = 15, .min_seconds = 0.05, .max_seconds = 2};
    const std::vector<Latency> latencies = TimeInterleaved(pointers, {{"x", x}}, timing);
    for (size_t f = 0; f < forms.size(); ++f) {
      log_speedup[f] += std::log(latencies[0].min_ms / latencies[f].min_ms);
    }
  }
  LinearChoice choice;
  for (size_t f = 1; f < forms.size(); ++f) {
    const double speedup = std::exp(log_speedup[f] / static_cast<double>(layer.shapes.size()));
    if (speedup <= choice.speedup) continue;
    choice.speedup = speedup;
    choice.form = speedup >= kSmallestGain ? forms[f] : LinearForm::kFloat;
  }
  return choice;
}

}  // namespace

std::string_view FormName(LinearForm form) {
  switch (form) {
    case LinearForm::kFloat:
      return "float";
    case LinearForm::kCustom:
      return "custom";
    case LinearForm::kStandard:
      return "standard";
  }
  return "?";
}

std::vector<LinearChoice> MeasureForms(const Model& model, const std::vector<LinearLayer>& layers,
                                       const std::vector<std::vector<Dims>>& shapes,
                                       const Context& context) {
  std::map<Case, LinearChoice> measured;
  std::vector<LinearChoice> choices;
  for (size_t i = 0; i < layers.size(); ++i) {
    Case layer{layers[i].inputs, layers[i].outputs, !layers[i].bias.empty(), {}};
    for (const std::vector<Dims>& batch : shapes) layer.shapes.push_back(batch[i]);
    auto found = measured.find(layer);
    if (found == measured.end()) {
      found = measured.emplace(layer, Measure(layer, model.opset(), context)).first;
    }
    choices.push_back(found->second);
    context.progress("layer timing", static_cast<int64_t>(i) + 1,
                     static_cast<int64_t>(layers.size()));
  }
  return choices;
}

}  // namespace sparsefuse

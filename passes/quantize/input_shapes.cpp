#include "passes/quantize/input_shapes.h"

#include <map>
#include <string>

#include "passes/engine/engine.h"
#include "passes/lower/builder.h"

namespace sparsefuse {
namespace {

SessionOptions Options(const Context& context) {
  SessionOptions options;
  options.threads = context.threads;
  options.operator_library = context.operator_library;
  return options;
}

// The distinct inputs of the layers, each with its number of features.
std::map<std::string, int64_t> DistinctInputs(const std::vector<LinearLayer>& layers) {
  std::map<std::string, int64_t> inputs;
  for (const LinearLayer& layer : layers) inputs[layer.input->name()] = layer.inputs;
  return inputs;
}

}  // namespace

std::vector<Dims> InputShapes(const Model& model, const std::vector<LinearLayer>& layers,
                              int64_t batch, const Context& context) {
  Model probe = model.Clone();
  Builder builder(probe.graph());
  std::map<std::string, Dims> by_name;
  std::vector<std::string> names, outputs;
  for (const auto& [name, features] : DistinctInputs(layers)) {
    Value* shape = builder.Op("Shape", {probe.graph().FindValue(name)});
    probe.graph().AddGraphOutput(shape);
    names.push_back(name);
    outputs.push_back(shape->name());
  }
  const Session session(probe, Options(context));
  const std::vector<int64_t> samples(static_cast<size_t>(batch), 0);
  const std::vector<Tensor> results = session.Run(context.calibration->Gather(samples), outputs);
  for (size_t i = 0; i < names.size(); ++i) by_name[names[i]] = results[i].ToInts();
  std::vector<Dims> shapes;
  for (const LinearLayer& layer : layers) shapes.push_back(by_name[layer.input->name()]);
  return shapes;
}

}  // namespace sparsefuse

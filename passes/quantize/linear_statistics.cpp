#include "passes/quantize/linear_statistics.h"

#include <map>
#include <string>

#include "passes/engine/engine.h"
#include "passes/lower/builder.h"

namespace sparsefuse {
namespace {

constexpr int64_t kBatch = 16;
constexpr int64_t kMaxSamples = 512;

Attributes KeepNoAxes() {
  Attributes attributes;
  attributes.emplace_back("keepdims", int64_t{0});
  return attributes;
}

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

std::vector<InputStatistics> CollectInputStatistics(const Model& model,
                                                    const std::vector<LinearLayer>& layers,
                                                    const Context& context) {
  // [mean over all rows, mean square over all rows] of each input. Every batch has as many rows as
  // its samples have, so batches are weighted by samples.
  Model probe = model.Clone();
  Builder builder(probe.graph());
  std::vector<std::string> outputs;
  std::vector<std::string> names;
  for (const auto& [name, features] : DistinctInputs(layers)) {
    Value* rows =
        builder.Op("Reshape", {probe.graph().FindValue(name), builder.Ints({-1, features})});
    Value* first = builder.Ints({0});
    for (Value* x : {rows, builder.Op("Mul", {rows, rows})}) {
      Value* mean = builder.Op("ReduceMean", {x, first}, KeepNoAxes());
      probe.graph().AddGraphOutput(mean);
      outputs.push_back(mean->name());
    }
    names.push_back(name);
  }
  std::vector<int64_t> samples = context.splits.fit;
  if (static_cast<int64_t>(samples.size()) > kMaxSamples) samples.resize(kMaxSamples);
  std::vector<std::vector<double>> sums(outputs.size());
  int64_t seen = 0;
  const Session session(probe, Options(context));
  ForEachBatch(session, *context.calibration, samples, kBatch, outputs,
               [&](std::span<const Tensor> means, std::span<const int64_t> batch) {
                 for (size_t i = 0; i < means.size(); ++i) {
                   const std::span<const float> mean = means[i].data<float>();
                   sums[i].resize(mean.size());
                   for (size_t k = 0; k < mean.size(); ++k) {
                     sums[i][k] += static_cast<double>(mean[k]) * static_cast<double>(batch.size());
                   }
                 }
                 seen += static_cast<int64_t>(batch.size());
                 context.progress("input statistics", seen, static_cast<int64_t>(samples.size()));
               });
  const auto average = [seen](const std::vector<double>& sum) {
    std::vector<float> mean;
    for (double s : sum) mean.push_back(static_cast<float>(s / static_cast<double>(seen)));
    return mean;
  };
  std::map<std::string, InputStatistics> by_name;
  for (size_t i = 0; i < names.size(); ++i) {
    by_name[names[i]] = {average(sums[2 * i]), average(sums[2 * i + 1])};
  }
  std::vector<InputStatistics> statistics;
  for (const LinearLayer& layer : layers) statistics.push_back(by_name[layer.input->name()]);
  return statistics;
}

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

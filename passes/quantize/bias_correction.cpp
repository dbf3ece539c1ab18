#include "passes/quantize/bias_correction.h"

#include <algorithm>
#include <cmath>

#include "passes/engine/engine.h"
#include "passes/lower/builder.h"

namespace sparsefuse {
namespace {

constexpr int64_t kBatch = 16;

// A float output of a product, and the rank of its filters, which is the output's.
struct Output {
  std::string name;
  int64_t rank;
};

// Mean over the batch and the places: [M], axis 1 of the output.
Value* AddChannelMean(Builder& builder, Graph& graph, const Output& output) {
  std::vector<int64_t> axes = {0};
  for (int64_t axis = 2; axis < output.rank; ++axis) axes.push_back(axis);
  Attributes attributes;
  attributes.emplace_back("keepdims", int64_t{0});
  std::vector<Value*> inputs = {graph.FindValue(output.name)};
  if (graph.model()->opset() >= 18) {
    inputs.push_back(builder.Ints(axes));
  } else {
    attributes.emplace_back("axes", axes);
  }
  return builder.Op("ReduceMean", inputs, std::move(attributes));
}

// Channel means of each output over `samples`.
std::vector<std::vector<double>> ChannelMeans(const Model& model,
                                              const std::vector<Output>& outputs,
                                              std::span<const int64_t> samples,
                                              const Context& context) {
  Model probe = model.Clone();
  Builder builder(probe.graph());
  std::vector<std::string> means;
  for (const Output& output : outputs) {
    Value* mean = AddChannelMean(builder, probe.graph(), output);
    probe.graph().AddGraphOutput(mean);
    means.push_back(mean->name());
  }
  const Session session(probe,
                        {.threads = context.threads, .operator_library = context.operator_library});
  std::vector<std::vector<double>> sums(outputs.size());
  double seen = 0;
  ForEachBatch(session, *context.calibration, samples, kBatch, means,
               [&](std::span<const Tensor> values, std::span<const int64_t> part) {
                 for (size_t i = 0; i < values.size(); ++i) {
                   const std::span<const float> mean = values[i].data<float>();
                   sums[i].resize(mean.size());
                   for (size_t m = 0; m < mean.size(); ++m) {
                     sums[i][m] += mean[m] * static_cast<double>(part.size());
                   }
                 }
                 seen += static_cast<double>(part.size());
               });
  for (std::vector<double>& sum : sums) {
    for (double& value : sum) value /= seen;
  }
  return sums;
}

// Multiply-adds of all products for one sample.
double CountMacs(const Model& model, const std::vector<Node*>& products, const Context& context) {
  std::vector<std::string> names;
  for (const Node* node : products) names.push_back(node->output(0)->name());
  const Session session(WithOutputs(model, names),
                        {.threads = context.threads, .operator_library = context.operator_library});
  const std::vector<int64_t> sample = {CalibrationSamples(context).front()};
  double macs = 0;
  ForEachBatch(session, *context.calibration, sample, 1, names,
               [&](std::span<const Tensor> values, std::span<const int64_t>) {
                 for (size_t i = 0; i < values.size(); ++i) {
                   const Tensor& weight = *products[i]->constant_input(1);
                   const double filters = static_cast<double>(values[i].dims()[1]);
                   macs += static_cast<double>(values[i].size()) *
                           (static_cast<double>(weight.size()) / filters);
                 }
               });
  return macs;
}

}  // namespace

int64_t CorrectionSamples(int64_t available, size_t products, double macs) {
  const double runs = std::max(1.0, macs * static_cast<double>(products));
  const double affordable = std::min(kCorrectionMacs / runs, 1e9);
  return std::min(available, std::max(kFewestCorrectionSamples, static_cast<int64_t>(affordable)));
}

Corrections CorrectBiases(const Model& reference, const Quantise& quantise,
                          const Context& context) {
  Corrections corrections;
  const std::vector<EmittedProduct> products = quantise({}).products;
  if (products.empty()) return corrections;
  std::vector<Node*> nodes;
  std::vector<Output> outputs;
  for (const EmittedProduct& product : products) {
    const Value* value = reference.graph().FindValue(product.key);
    SF_CHECK(value && value->producer(), "no product {}", product.key);
    nodes.push_back(value->producer());
    outputs.push_back({product.key, value->producer()->constant_input(1)->rank()});
  }
  std::vector<int64_t> samples = CalibrationSamples(context);
  samples.resize(
      static_cast<size_t>(CorrectionSamples(static_cast<int64_t>(samples.size()), products.size(),
                                            CountMacs(reference, nodes, context))));
  const std::vector<std::vector<double>> wanted =
      ChannelMeans(reference, outputs, samples, context);
  for (size_t i = 0; i < products.size(); ++i) {
    context.progress("bias correction", static_cast<int64_t>(i),
                     static_cast<int64_t>(products.size()));
    const Candidate candidate = quantise(corrections);
    const std::vector<double> mean =
        ChannelMeans(candidate.model, {{candidate.products[i].output, outputs[i].rank}}, samples,
                     context)
            .front();
    std::vector<float>& correction = corrections[products[i].key];
    for (size_t m = 0; m < mean.size(); ++m) {
      const double lost = wanted[i][m] - mean[m];
      correction.push_back(std::isfinite(lost) ? static_cast<float>(lost) : 0.0f);
    }
  }
  return corrections;
}

}  // namespace sparsefuse

#include "passes/quantize/equalization.h"

#include <algorithm>
#include <cmath>

#include "passes/engine/engine.h"
#include "passes/lower/builder.h"
#include "passes/quantize/activation_ranges.h"
#include "passes/quantize/convolution_plan.h"

namespace sparsefuse {
namespace {

constexpr double kSmallestLog = -5;  // s ≥ 2⁻⁵
constexpr int64_t kOutputsBatch = 16;

// A tensor with its producer and readers.
struct Link {
  Node* producer;
  Value* tensor;  // what the readers read: the producer's output, or the Relu's behind it
  std::vector<Node*> readers;
};

bool CanRescale(const Node& node, const std::set<std::string>& untouched, const Context& context) {
  if (!node.Is("Conv") || untouched.contains(KeyOf(node)) || !WhyFloat(node, context).empty()) {
    return false;
  }
  return node.input(1)->has_single_use() && (!node.input(2) || node.input(2)->has_single_use());
}

std::vector<Link> FindLinks(Model& model, const std::set<std::string>& untouched,
                            const Context& context) {
  std::vector<Link> links;
  for (Node* node : model.graph().TopologicalOrder()) {
    if (!CanRescale(*node, untouched, context)) continue;
    Value* tensor = node->output(0);
    if (tensor->has_single_use() && tensor->uses()[0].node->Is("Relu")) {
      tensor = tensor->uses()[0].node->output(0);
    }
    if (tensor->is_graph_output() || tensor->uses().empty()) continue;
    Link link{node, tensor, {}};
    for (const Use& use : tensor->uses()) {
      if (use.index != 0 || !CanRescale(*use.node, untouched, context)) break;
      link.readers.push_back(use.node);
    }
    if (link.readers.size() == tensor->uses().size()) links.push_back(std::move(link));
  }
  return links;
}

// Largest magnitude of every channel of every link's tensor, reduced inside the engine.
std::vector<std::vector<float>> ChannelMagnitudes(const Model& model,
                                                  const std::vector<Link>& links,
                                                  const Context& context) {
  Model probe = model.Clone();
  Builder builder(probe.graph());
  std::vector<std::string> outputs;
  for (const Link& link : links) {
    Value* tensor = probe.graph().FindValue(link.tensor->name());
    std::vector<int64_t> axes = {0};
    for (int64_t axis = 2; axis < link.producer->constant_input(1)->rank(); ++axis) {
      axes.push_back(axis);
    }
    Attributes attributes;
    attributes.emplace_back("keepdims", int64_t{0});
    std::vector<Value*> inputs = {builder.Op("Abs", {tensor})};
    if (model.opset() >= 18) {
      inputs.push_back(builder.Ints(axes));
    } else {
      attributes.emplace_back("axes", axes);
    }
    Value* largest = builder.Op("ReduceMax", inputs, std::move(attributes));
    probe.graph().AddGraphOutput(largest);
    outputs.push_back(largest->name());
  }
  const Session session(probe,
                        {.threads = context.threads, .operator_library = context.operator_library});
  std::vector<std::vector<float>> magnitudes(links.size());
  ForEachBatch(session, *context.calibration, CalibrationSamples(context), kOutputsBatch, outputs,
               [&](std::span<const Tensor> values, std::span<const int64_t>) {
                 for (size_t i = 0; i < values.size(); ++i) {
                   const std::span<const float> part = values[i].data<float>();
                   magnitudes[i].resize(part.size());
                   for (size_t c = 0; c < part.size(); ++c) {
                     magnitudes[i][c] = std::max(magnitudes[i][c], part[c]);
                   }
                 }
               });
  return magnitudes;
}

bool HasOneInput(const Node& conv) { return conv.constant_input(1)->dims()[1] == 1; }

// Input `index` of the node, as floats through `scale(position)`, becomes a constant of its own.
template <typename Scale>
void Rescale(Graph& graph, Node* node, size_t index, const Scale& scale) {
  Value* old = node->input(index);
  const Tensor tensor = *old->constant();
  std::vector<float> values = tensor.ToFloats();
  for (size_t i = 0; i < values.size(); ++i) values[i] *= scale(i);
  graph.SetInput(
      node, index,
      graph.AddInitializer(graph.FreshName(old->name()), Tensor::Of(tensor.dims(), values)));
  if (old->producer()) {
    graph.RemoveNode(old->producer());
  } else {
    graph.RemoveInitializer(old);
  }
}

void Apply(Graph& graph, const Link& link, const std::vector<float>& factors) {
  const Dims& own = link.producer->constant_input(1)->dims();
  const size_t filter = static_cast<size_t>(link.producer->constant_input(1)->size() / own[0]);
  Rescale(graph, link.producer, 1, [&](size_t i) { return 1 / factors[i / filter]; });
  if (link.producer->input(2)) {
    Rescale(graph, link.producer, 2, [&](size_t i) { return 1 / factors[i]; });
  }
  for (Node* reader : link.readers) {
    const Tensor weight = *reader->constant_input(1);
    const auto filters = static_cast<size_t>(weight.dims()[0]);
    const auto channels = static_cast<size_t>(weight.dims()[1]);  // of one group
    const size_t places = static_cast<size_t>(weight.size()) / (filters * channels);
    const size_t groups = factors.size() / channels;
    Rescale(graph, reader, 1, [&](size_t i) {
      const size_t group = i / (channels * places) / (filters / groups);
      return factors[group * channels + i / places % channels];
    });
  }
}

}  // namespace

std::vector<float> EqualizingFactors(std::span<const float> magnitudes, double strength) {
  float largest = 0;
  for (float m : magnitudes) largest = std::max(largest, m);
  std::vector<float> factors;
  for (float m : magnitudes) {
    const double log = m > 0 ? strength * std::log2(m / largest) : kSmallestLog;
    factors.push_back(static_cast<float>(std::exp2(std::max(log, kSmallestLog))));
  }
  return factors;
}

int EqualizeChannels(Model& model, const std::set<std::string>& untouched, const Context& context) {
  const std::vector<Link> links = FindLinks(model, untouched, context);
  if (links.empty()) return 0;
  const std::vector<std::vector<float>> magnitudes = ChannelMagnitudes(model, links, context);
  int equalised = 0;
  for (size_t i = 0; i < links.size(); ++i) {
    const std::vector<Node*>& readers = links[i].readers;
    const bool depthwise =
        std::all_of(readers.begin(), readers.end(), [](Node* n) { return HasOneInput(*n); });
    const std::vector<float> factors = EqualizingFactors(magnitudes[i], depthwise ? 1.0 : 0.5);
    if (std::all_of(factors.begin(), factors.end(), [](float s) { return s == 1; })) continue;
    if (factors.size() != static_cast<size_t>(links[i].producer->constant_input(1)->dims()[0])) {
      continue;  // not calibrated: no samples
    }
    Apply(model.graph(), links[i], factors);
    ++equalised;
  }
  return equalised;
}

}  // namespace sparsefuse

#include "passes/quantize/linear_widths.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <optional>
#include <set>

#include "passes/data/metrics.h"
#include "passes/statistics/batches.h"
#include "passes/statistics/matrix.h"

namespace sparsefuse {
namespace {

constexpr size_t kMostKlSamples = 64;
constexpr int64_t kKlBatch = 8;

bool HasWeights(const Node& node) {
  if (node.Is("Gather")) {
    const Tensor* table = node.constant_input(0);
    return table && table->rank() == 2 && IsFloating(table->dtype());
  }
  return AsMatrix(node).has_value() || node.Is("Conv") || node.Is("ConvTranspose") ||
         node.Is("MatMulInteger") || node.Is("QLinearMatMul");
}

std::vector<float> Int4Rows(const LinearLayer& layer, int64_t width, int threads) {
  const std::vector<float> rows = layer.WeightRows();
  WeightRequest request{.weight = {rows, layer.inputs, layer.outputs},
                        .rule = {.encoding = Encoding::kInt4},
                        .width = width,
                        .feedback = FeedbackUse::kNever,
                        .threads = threads};
  const CodedWeight coded = SearchWeight(request);
  return Decode(coded.codes, coded.scales, layer.inputs, Encoding::kInt4);
}

// A model's answers to some samples, against which others are held.
class Reference {
 public:
  Reference(const Model& model, const Context& context) : context_(context) {
    std::vector<int64_t> samples = context.splits.select;
    if (samples.size() > kMostKlSamples) samples.resize(kMostKlSamples);
    batches_ = MakeBatches(*context.calibration, samples, kKlBatch);
    outputs_ = {model.graph().outputs().front()->name()};
    answers_ = RunBatches({model, batches_, outputs_}, context);
  }

  double Loss(const Model& candidate) const {
    const auto answers = RunBatches({candidate, batches_, outputs_}, context_);
    Distances distances;
    for (size_t b = 0; b < answers.size(); ++b) {
      distances.Add(answers_[b][0], answers[b][0], DetectOutputKind(answers_[b][0]));
    }
    const double kl = distances.Kl();
    return std::isfinite(kl)
               ? kl
               : distances.error_energy / std::max(distances.reference_energy, 1e-300);
  }

 private:
  const Context& context_;
  Batches batches_;
  std::vector<std::string> outputs_;
  std::vector<std::vector<Tensor>> answers_;
};

// Of the layer alone in int4, with all that share its weight.
double PredictedLoss(const Model& model, const std::vector<LinearLayer>& layers,
                     const std::vector<size_t>& same_as, size_t index, int64_t width,
                     const std::optional<Reference>& reference, const Context& context) {
  const LinearLayer& layer = layers[index];
  const std::vector<float> rows = Int4Rows(layer, width, context.threads);
  if (!reference) {
    const std::vector<float> original = layer.WeightRows();
    const WeightRowsView view{original, layer.inputs, layer.outputs};
    return BlockError(view, rows, {}, context.threads);
  }
  Model changed = model.Clone();
  for (size_t i = 0; i < layers.size(); ++i) {
    if (same_as[i] != index) continue;
    const Node& node = *changed.graph().FindValue(layers[i].product->output(0)->name())->producer();
    const std::optional<MatrixView> view = AsMatrix(node);
    if (!view) continue;
    SetWeight(
        changed, *view,
        Eigen::Map<const Eigen::MatrixXf>(rows.data(), layer.inputs, layer.outputs).cast<double>(),
        Bias(*view));
  }
  return reference->Loss(changed);
}

}  // namespace

EndLayers FindEndLayers(const Model& model, const std::vector<LinearLayer>& layers) {
  std::map<const Node*, size_t> products;
  for (size_t i = 0; i < layers.size(); ++i) products.emplace(layers[i].product, i);
  std::set<const Value*> weighted;  // with weights between the inputs and it
  EndLayers ends{std::vector<bool>(layers.size()), std::vector<bool>(layers.size())};
  const std::vector<Node*> order = model.graph().TopologicalOrder();
  for (const Node* node : order) {
    const bool behind =
        std::any_of(node->inputs().begin(), node->inputs().end(),
                    [&](const Value* value) { return value && weighted.contains(value); });
    const auto layer = products.find(node);
    if (layer != products.end()) ends.first[layer->second] = !weighted.contains(node->input(0));
    if (!behind && !HasWeights(*node)) continue;
    for (const Value* output : node->outputs()) {
      if (output) weighted.insert(output);
    }
  }
  std::set<const Value*> leading;  // to another layer
  for (auto node = order.rbegin(); node != order.rend(); ++node) {
    const bool before =
        std::any_of((*node)->outputs().begin(), (*node)->outputs().end(),
                    [&](const Value* value) { return value && leading.contains(value); });
    const auto layer = products.find(*node);
    if (layer != products.end()) ends.last[layer->second] = !before;
    if (!before && layer == products.end()) continue;
    for (const Value* input : (*node)->inputs()) {
      if (input) leading.insert(input);
    }
  }
  return ends;
}

std::vector<bool> Promote(const std::vector<double>& losses, const std::vector<int64_t>& weights,
                          const std::vector<bool>& fixed8, double bits) {
  std::vector<bool> wide = fixed8;
  const auto total =
      static_cast<double>(std::accumulate(weights.begin(), weights.end(), int64_t{0}));
  double used = 0;  // bits
  for (size_t i = 0; i < weights.size(); ++i) {
    used += static_cast<double>(weights[i]) * (wide[i] ? 8 : 4);
  }
  std::vector<size_t> order(losses.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    return losses[a] * static_cast<double>(weights[b]) >
           losses[b] * static_cast<double>(weights[a]);
  });
  for (const size_t i : order) {
    const double more = 4 * static_cast<double>(weights[i]);
    if (wide[i] || used + more > bits * total * (1 + 1e-12)) continue;
    wide[i] = true;
    used += more;
  }
  return wide;
}

std::vector<LayerWidth> ChooseWidths(const Model& model, const std::vector<LinearLayer>& layers,
                                     const std::vector<size_t>& same_as,
                                     const std::vector<bool>& stays_int8,
                                     const WidthOptions& options, const Context& context) {
  std::vector<LayerWidth> widths(layers.size());
  if (options.weights == WeightWidth::kInt8) return widths;
  const EndLayers ends = FindEndLayers(model, layers);
  std::vector<std::string> reasons(layers.size());  // of first ones of a weight
  for (size_t i = 0; i < layers.size(); ++i) {
    std::string& reason = reasons[same_as[i]];
    if (!reason.empty()) continue;
    if (stays_int8[i]) {
      reason = "tied to an embedding";
    } else if (options.ends_int8 && ends.first[i]) {
      reason = "first layer";
    } else if (options.ends_int8 && ends.last[i]) {
      reason = "last layer";
    }
  }
  std::vector<bool> wide(layers.size());
  if (options.weights == WeightWidth::kMixed) {
    std::vector<double> losses(layers.size());
    std::vector<int64_t> weights(layers.size());
    std::optional<Reference> reference;
    if (context.calibration) reference.emplace(model, context);
    for (size_t i = 0; i < layers.size(); ++i) {
      if (same_as[i] != i) continue;  // counts once
      weights[i] = layers[i].inputs * layers[i].outputs;
      wide[i] = !reasons[i].empty();
      if (wide[i]) continue;
      losses[i] = PredictedLoss(model, layers, same_as, i,
                                std::min(options.width, layers[i].inputs), reference, context);
      context.progress("predicted losses", static_cast<int64_t>(i) + 1,
                       static_cast<int64_t>(layers.size()));
    }
    wide = Promote(losses, weights, wide, options.bits);
  }
  for (size_t i = 0; i < layers.size(); ++i) {
    const size_t first = same_as[i];
    widths[i].reason = reasons[first];
    if (!reasons[first].empty()) continue;
    if (wide[first]) {
      widths[i].reason = "4 bits would cost most here";
    } else {
      widths[i].encoding =
          options.weights == WeightWidth::kNested ? options.nested : Encoding::kInt4;
    }
  }
  return widths;
}

}  // namespace sparsefuse

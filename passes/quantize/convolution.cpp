#include "passes/quantize/convolution.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <nlohmann/json.hpp>
#include <optional>

#include "passes/engine/evaluate.h"
#include "passes/quantize/activation_ranges.h"
#include "passes/quantize/bias_correction.h"
#include "passes/quantize/convolution_emit.h"
#include "passes/quantize/convolution_variants.h"
#include "passes/quantize/variants.h"

namespace sparsefuse {
namespace {

constexpr int64_t kPerChannelOpset = 13;

// An int8 model further than this from its float original on the select split is not used.
constexpr double kLowestCosine = 0.97;
constexpr double kMostFlips = 0.1;

bool IsQuantised(const Model& model) {
  bool found = false;
  ForEachGraph(model, [&](const Graph& graph) {
    for (const Node* node : graph.Nodes()) {
      found = found || node->op() == "QuantizeLinear" || node->op() == "QLinearConv" ||
              node->op() == "ConvInteger";
    }
  });
  return found;
}

// Why no convolution of this model can be quantised; empty if some may.
std::string WhyNone(const Model& model, const Context& context) {
  if (IsQuantised(model)) return "the model is quantised already";
  if (model.opset() < kPerChannelOpset) {
    return fmt::format("opset {} has no per-channel DequantizeLinear (needs {})", model.opset(),
                       kPerChannelOpset);
  }
  if (!context.calibration) return "needs calibration data";
  return "";
}

std::string WhyFloatHere(const Node& node, const Context& context, bool in_main_graph) {
  if (context.Excluded(node)) return "excluded";
  if (!in_main_graph) return "in a subgraph or function";
  if (node.Is("ConvTranspose")) return "ONNX Runtime has no 8-bit ConvTranspose";
  if (std::string reason = WhyFloat(node, context); !reason.empty()) return reason;
  return HasFiniteWeights(node) ? "" : "weight or bias has NaN or infinite values";
}

struct Distance {
  double cosine = 1, agreement = 1, error = 0;

  bool IsClose() const { return cosine >= kLowestCosine && agreement >= 1 - kMostFlips; }
};

// One model, one run: find → measure → calibrate → choose → rewrite.
class ConvolutionQuantizer {
 public:
  ConvolutionQuantizer(Model& model, Context& context, const ConvolutionOptions& options,
                       PassStats& stats)
      : model_(model),
        context_(context),
        options_(options),
        stats_(stats),
        filters_(options.bound, context.threads) {}

  void Run() {
    if (!FindConvolutions()) return;
    variants_ = ListVariants(model_.graph(), context_, float_keys_);
    Calibrate();
    const std::optional<size_t> chosen = ChooseMeasured();
    if (!chosen) {
      SkipAll(fmt::format("int8 measured at ×{:.2f} of float's speed", best_ratio_));
      return;
    }
    Quantise(variants_[*chosen]);
  }

 private:
  // Reports what stays in float whatever is measured; false if nothing else is left.
  bool FindConvolutions() {
    const std::string none = WhyNone(model_, context_);
    bool found = false;
    ForEachGraph(model_, [&](Graph& graph) {
      const bool main = &graph == &model_.graph();
      for (Node* node : graph.TopologicalOrder()) {
        const bool product = node->Is("Conv") || node->Is("ConvTranspose");
        if (!product) {
          if (main && node->Is("Gemm") && !HasFiniteWeights(*node)) float_keys_.insert(KeyOf(*node));
          continue;
        }
        std::string reason = WhyFloatHere(*node, context_, main);
        if (reason.empty()) reason = none;
        if (reason.empty()) {
          found = true;
          continue;
        }
        stats_.Skip(*node, reason);
        if (main) float_keys_.insert(KeyOf(*node));
      }
    });
    return found;
  }

  // Histograms of every tensor that any variant codes.
  void Calibrate() {
    std::set<std::string> names;
    for (const ConvolutionVariant& variant : variants_) {
      const ConvolutionPlan plan = PlanConvolutions(model_.graph(), context_, variant.keep_float);
      for (const std::vector<Value*>& group : plan.measured) {
        for (const Value* value : group) names.insert(value->name());
      }
    }
    histograms_ = CollectHistograms(model_, {names.begin(), names.end()}, context_);
  }

  struct Built {
    Model model;
    Emission emission;
  };

  Built Build(const ConvolutionVariant& variant, RangeMethod method,
              const Corrections& corrections) {
    Built built{model_.Clone(), {}};
    const ConvolutionPlan plan =
        PlanConvolutions(built.model.graph(), context_, variant.keep_float);
    std::vector<ActivationCode> codes;
    for (const std::vector<Value*>& group : plan.measured) {
      Range range;
      for (const Value* value : group) {
        range = Union(range, ChooseRange(histograms_.at(value->name()), method));
      }
      codes.push_back(CodeOf(range));
    }
    built.emission = EmitConvolutions(built.model, plan, codes, filters_,
                                      {.pad_channels = variant.pad_channels,
                                       .corrections = corrections});
    return built;
  }

  // The variant to use; nothing if float is not beaten. Without measuring: the first, "all".
  std::optional<size_t> ChooseMeasured() {
    nlohmann::json& decision = context_.decisions["quantize"]["convolution"];
    if (decision.is_object()) return Replay(decision);
    if (!context_.measure) {
      decision = {{"variant", variants_[0].name}, {"speedup", 0.0}};
      return 0;
    }
    std::vector<Built> built;
    std::vector<std::pair<std::string, const Model*>> models;
    std::vector<uint64_t> bytes;
    built.reserve(variants_.size());
    for (const ConvolutionVariant& variant : variants_) {
      built.push_back(Build(variant, RangeMethod::kMinMax, {}));
      models.emplace_back(variant.name, &built.back().model);
      bytes.push_back(built.back().model.WeightBytes());
    }
    const std::vector<VariantTiming> timings = TimeVariants(
        model_, models, *context_.calibration, BatchesToTime(*context_.calibration), context_);
    const std::optional<size_t> chosen = ChooseVariant(timings, bytes);
    for (const VariantTiming& timing : timings) {
      best_ratio_ = std::max(best_ratio_, timing.geometric_mean);
    }
    if (chosen) best_ratio_ = timings[*chosen].geometric_mean;
    decision = {{"variant", chosen ? variants_[*chosen].name : std::string(kNoVariant)},
                {"speedup", std::round(best_ratio_ * 100) / 100}};
    return chosen;
  }

  std::optional<size_t> Replay(const nlohmann::json& decision) {
    const std::string name = decision.value("variant", "");
    best_ratio_ = decision.value("speedup", 0.0);
    if (name == kNoVariant) return std::nullopt;
    for (size_t i = 0; i < variants_.size(); ++i) {
      if (variants_[i].name == name) return i;
    }
    throw UserError(ErrorCode::kConfig,
                    fmt::format("decision \"{}\" is no variant of this model", Printable(name)),
                    "remove \"decisions\" to measure again")
        .At("$.decisions.quantize.convolution.variant");
  }

  // How far a model's outputs are from the float model's on the select split: the worst of its
  // outputs; `error` adds up what they lost.
  Distance Measure(const Model& candidate) {
    const SessionOptions session{.threads = context_.threads,
                                 .operator_library = context_.operator_library};
    std::vector<int64_t> samples = context_.splits.select;
    if (samples.size() > static_cast<size_t>(kCalibrationSamples)) {
      samples.resize(static_cast<size_t>(kCalibrationSamples));
    }
    const Comparison comparison =
        CompareModels(Session(model_, session), Session(candidate, session),
                      *context_.calibration, samples);
    Distance worst;
    for (const auto& [name, distances] : comparison.outputs) {
      if (distances.samples > 0) worst.cosine = std::min(worst.cosine, distances.Cosine());
      if (distances.answers > 0) worst.agreement = std::min(worst.agreement, distances.Agreement());
      if (distances.reference_energy > 0) {
        worst.error += distances.error_energy / distances.reference_energy;
      }
    }
    return worst;
  }

  void Quantise(const ConvolutionVariant& variant) {
    std::optional<Built> best;
    Distance least;
    RangeMethod method = kRangeMethods[0];
    for (const RangeMethod candidate : kRangeMethods) {
      Built built = Build(variant, candidate, {});
      const Distance distance = Measure(built.model);
      if (best && distance.error >= least.error) continue;
      best = std::move(built);
      least = distance;
      method = candidate;
    }
    if (options_.bias_correction) {
      const auto quantise = [&](const Corrections& corrections) {
        Built built = Build(variant, method, corrections);
        return Candidate{std::move(built.model), std::move(built.emission.products)};
      };
      Built corrected = Build(variant, method, CorrectBiases(model_, quantise, context_));
      const Distance distance = Measure(corrected.model);
      if (distance.error < least.error) {
        best = std::move(corrected);
        least = distance;
      }
    }
    if (!least.IsClose()) {
      SkipAll(fmt::format("int8 outputs are too far from float's (cosine {:.3f}, agreement {:.3f})",
                          least.cosine, least.agreement));
      return;
    }
    Report(variant, best->emission);
    model_ = std::move(best->model);
  }

  // Findings in the order of the float graph.
  void Report(const ConvolutionVariant& variant, const Emission& emission) {
    std::set<std::string> done;
    for (const EmittedProduct& product : emission.products) done.insert(product.key);
    for (Node* node : model_.graph().TopologicalOrder()) {
      if (done.contains(KeyOf(*node))) {
        const Dims& dims = node->constant_input(1)->dims();
        const bool conv = node->Is("Conv");
        const int64_t channels = conv ? dims[1] : 1;
        stats_.Done(*node, fmt::format("int8 {} {}, static", conv ? "filters" : "weight", ToString(dims)),
                    filters_.Get(*node, channels).relative_error);
        ++stats_.tensors_rewritten;
      } else if (node->Is("Conv") && !float_keys_.contains(KeyOf(*node))) {
        stats_.Skip(*node, fmt::format("measured faster in float (variant {})", variant.name));
      }
    }
    stats_.nodes_added += emission.nodes_added;
    stats_.nodes_removed += emission.nodes_removed;
  }

  void SkipAll(const std::string& reason) {
    for (Node* node : model_.graph().TopologicalOrder()) {
      if (node->Is("Conv") && !float_keys_.contains(KeyOf(*node))) stats_.Skip(*node, reason);
    }
  }

  Model& model_;
  Context& context_;
  const ConvolutionOptions& options_;
  PassStats& stats_;
  FilterCache filters_;
  std::set<std::string> float_keys_;  // of nodes that stay in float whatever is measured
  std::vector<ConvolutionVariant> variants_;
  Histograms histograms_;
  double best_ratio_ = 0;
};

}  // namespace

void QuantizeConvolutions(Model& model, Context& context, const ConvolutionOptions& options,
                          PassStats& stats) {
  ConvolutionQuantizer(model, context, options, stats).Run();
}

}  // namespace sparsefuse

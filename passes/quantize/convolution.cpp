#include "passes/quantize/convolution.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <optional>

#include "passes/engine/evaluate.h"
#include "passes/quantize/activation_ranges.h"
#include "passes/quantize/bias_correction.h"
#include "passes/quantize/convolution_emit.h"
#include "passes/quantize/convolution_variants.h"
#include "passes/quantize/linear.h"
#include "passes/quantize/stored_filters.h"
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

std::string WhyNothing(const Node& node, const Context& context, bool in_main_graph) {
  if (context.Excluded(node)) return "excluded";
  if (!in_main_graph) return "in a subgraph or function";
  if (node.Is("ConvTranspose")) return "ONNX Runtime has no 8-bit ConvTranspose";
  if (std::string reason = WhyFloat(node, context); !reason.empty()) return reason;
  return HasFiniteWeights(node) ? "" : "weight or bias has NaN or infinite values";
}

// Why no convolution of this model can compute in int8; empty if some may.
std::string WhyNotStatic(const Model& model, const Context& context) {
  if (!context.calibration) return "static int8 needs calibration data";
  if (model.opset() < kPerChannelOpset) {
    return fmt::format("opset {} has no per-channel DequantizeLinear, {} has", model.opset(),
                       kPerChannelOpset);
  }
  return "";
}

// Too small for the quantiser of linear layers.
bool IsSmallGemm(const Node& node) {
  if (!node.Is("Gemm")) return false;
  const Dims& dims = node.constant_input(1)->dims();
  const bool rows = node.GetInt("transB", 0) != 0;
  return dims[rows ? 1 : 0] < kMinLinearInputs || dims[rows ? 0 : 1] < kMinLinearOutputs;
}

std::string Describe(const Node& product) {
  return fmt::format("{} {}", product.Is("Conv") ? "filters" : "weight",
                     ToString(product.constant_input(1)->dims()));
}

// How far a model's outputs are from the float model's.
struct Distance {
  double cosine = 1, agreement = 1;  // the worst of its outputs
  double error = 0;                  // relative, summed over its outputs

  bool IsClose() const { return cosine >= kLowestCosine && agreement >= 1 - kMostFlips; }
};

// One model, one run: find → calibrate → measure → choose → rewrite.
class ConvolutionQuantizer {
 public:
  ConvolutionQuantizer(Model& model, Context& context, const ConvolutionOptions& options,
                       PassStats& stats)
      : model_(model),
        context_(context),
        options_(options),
        stats_(stats),
        filters_(options.bound, context.threads),
        stored_filters_(PairBound::kNone, context.threads) {}

  void Run() {
    if (!FindConvolutions()) return;
    variants_ = ListVariants(model_.graph(), context_, untouched_);
    why_float_ = WhyNotStatic(model_, context_);
    if (why_float_.empty()) Calibrate();
    const ConvolutionVariant& weights_only = variants_.back();
    const ConvolutionVariant& variant = why_float_.empty() ? ChooseMeasured() : weights_only;
    if (Adopt(variant) || &variant == &weights_only) return;
    why_float_ = too_far_;
    Adopt(weights_only);
  }

 private:
  // One way to quantise the model, carried out on a copy.
  struct Built {
    Model model;
    Emission emission;
    std::set<std::string> stored;  // products that compute in float on int8 filters
  };

  // Reports what is left alone whatever is measured; false if nothing else is there.
  bool FindConvolutions() {
    const bool quantised = IsQuantised(model_);
    bool found = false;
    ForEachGraph(model_, [&](Graph& graph) {
      const bool main = &graph == &model_.graph();
      for (Node* node : graph.TopologicalOrder()) {
        if (main && node->Is("Gemm") && !HasFiniteWeights(*node)) untouched_.insert(KeyOf(*node));
        if (!node->Is("Conv") && !node->Is("ConvTranspose")) continue;
        std::string reason = WhyNothing(*node, context_, main);
        if (reason.empty() && quantised) reason = "the model is quantised already";
        if (reason.empty()) {
          found = true;
          continue;
        }
        stats_.Skip(*node, reason);
        if (main) untouched_.insert(KeyOf(*node));
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
    for (const auto& [name, histogram] : histograms_) {
      if (histogram.finite()) continue;
      why_float_ = fmt::format("tensor \"{}\" has NaN or infinite values", Printable(name));
    }
  }

  Built Build(const ConvolutionVariant& variant, RangeMethod method,
              const Corrections& corrections) {
    Built built{model_.Clone(), {}, {}};
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
    built.emission =
        EmitConvolutions(built.model, plan, codes, filters_,
                         {.pad_channels = variant.pad_channels, .corrections = corrections});
    built.stored = StoreFilters(built.model, KeysToStore(built.emission), stored_filters_);
    return built;
  }

  // What computes in float although it might not have: every such convolution, and the Gemms behind
  // them that are too small for the quantiser of linear layers.
  std::set<std::string> KeysToStore(const Emission& emission) const {
    std::set<std::string> keys;
    for (const Node* node : model_.graph().Nodes()) {
      const std::string key = KeyOf(*node);
      if (untouched_.contains(key)) continue;
      const bool gemm = variants_.back().keep_float.contains(key) && IsSmallGemm(*node);
      if (node->Is("Conv") || gemm) keys.insert(key);
    }
    for (const EmittedProduct& product : emission.products) keys.erase(product.key);
    return keys;
  }

  // Carries the variant out; false if that changes the outputs too much.
  bool Adopt(const ConvolutionVariant& variant) {
    Built built = BuildBest(variant);
    const Distance distance = context_.calibration ? Measure(built.model) : Distance{};
    if (!distance.IsClose()) {
      too_far_ = fmt::format("int8 is too far from float (cosine {:.3f}, agreement {:.3f})",
                             distance.cosine, distance.agreement);
      if (&variant == &variants_.back()) SkipAll(too_far_);
      return false;
    }
    Report(built);
    model_ = std::move(built.model);
    return true;
  }

  // Without measuring the first, "all"; the last, "weights-only", if float is not beaten.
  const ConvolutionVariant& ChooseMeasured() {
    nlohmann::json& decision = context_.decisions["quantize"]["convolution"];
    if (decision.is_object()) return Replay(decision);
    const size_t chosen = context_.measure ? Time().value_or(variants_.size() - 1) : 0;
    decision = {{"variant", variants_[chosen].name}, {"speedup", std::round(speedup_ * 100) / 100}};
    ExplainFloat(variants_[chosen]);
    return variants_[chosen];
  }

  // The variant to use; nothing if none beats float.
  std::optional<size_t> Time() {
    std::vector<Built> built;
    std::vector<std::pair<std::string, const Model*>> models;
    std::vector<uint64_t> bytes;
    built.reserve(variants_.size());
    for (size_t i = 0; i + 1 < variants_.size(); ++i) {
      built.push_back(Build(variants_[i], RangeMethod::kMinMax, {}));
      models.emplace_back(variants_[i].name, &built.back().model);
      bytes.push_back(built.back().model.WeightBytes());
    }
    const std::vector<VariantTiming> timings = TimeVariants(
        model_, models, *context_.calibration, BatchesToTime(*context_.calibration), context_);
    const std::optional<size_t> chosen = ChooseVariant(timings, bytes);
    for (const VariantTiming& timing : timings) {
      speedup_ = std::max(speedup_, timing.geometric_mean);
    }
    if (chosen) speedup_ = timings[*chosen].geometric_mean;
    return chosen;
  }

  const ConvolutionVariant& Replay(const nlohmann::json& decision) {
    const std::string name = decision.value("variant", "");
    speedup_ = decision.value("speedup", 0.0);
    for (const ConvolutionVariant& variant : variants_) {
      if (variant.name != name) continue;
      ExplainFloat(variant);
      return variant;
    }
    throw UserError(ErrorCode::kConfig,
                    fmt::format("\"{}\" is no variant of this model", Printable(name)),
                    "remove \"decisions\" to measure again")
        .At("$.decisions.quantize.convolution.variant");
  }

  void ExplainFloat(const ConvolutionVariant& variant) {
    why_float_ = &variant == &variants_.back()
                     ? fmt::format("int8 measured at ×{:.2f} of float's speed", speedup_)
                     : fmt::format("measured faster so (variant \"{}\", whole model ×{:.2f})",
                                   variant.name, speedup_);
  }

  // The variant with the ranges and, if that helps, the corrected biases that come nearest to the
  // float model on the select split.
  Built BuildBest(const ConvolutionVariant& variant) {
    Built best = Build(variant, kRangeMethods[0], {});
    if (best.emission.products.empty()) return best;
    RangeMethod method = kRangeMethods[0];
    double least = Measure(best.model).error;
    const auto keep_if_nearer = [&](Built built) {
      const double error = Measure(built.model).error;
      if (!(error < least)) return false;
      least = error;
      best = std::move(built);
      return true;
    };
    for (const RangeMethod other : kRangeMethods) {
      if (keep_if_nearer(Build(variant, other, {}))) method = other;
    }
    if (options_.bias_correction) {
      const auto quantise = [&](const Corrections& corrections) {
        Built built = Build(variant, method, corrections);
        return Candidate{std::move(built.model), std::move(built.emission.products)};
      };
      keep_if_nearer(Build(variant, method, CorrectBiases(model_, quantise, context_)));
    }
    return best;
  }

  // On the select split. Needs data.
  Distance Measure(const Model& candidate) const {
    const SessionOptions session{.threads = context_.threads,
                                 .operator_library = context_.operator_library};
    std::vector<int64_t> samples = context_.splits.select;
    if (samples.size() > static_cast<size_t>(kCalibrationSamples)) {
      samples.resize(static_cast<size_t>(kCalibrationSamples));
    }
    const Comparison comparison = CompareModels(
        Session(model_, session), Session(candidate, session), *context_.calibration, samples);
    Distance worst;
    for (const auto& [name, distances] : comparison.outputs) {
      if (distances.samples > 0) worst.cosine = std::min(worst.cosine, distances.Cosine());
      if (distances.answers > 0) {
        worst.agreement = std::min(worst.agreement, distances.Agreement());
      }
      if (distances.reference_energy > 0) {
        worst.error += distances.error_energy / distances.reference_energy;
      }
    }
    return worst;
  }

  // Findings in the order of the float graph.
  void Report(const Built& built) {
    std::set<std::string> coded;
    for (const EmittedProduct& product : built.emission.products) coded.insert(product.key);
    for (const Node* node : model_.graph().TopologicalOrder()) {
      const std::string key = KeyOf(*node);
      if (coded.contains(key)) {
        stats_.Done(*node, fmt::format("int8 {}, static activations", Describe(*node)),
                    Error(filters_, *node));
      } else if (built.stored.contains(key)) {
        stats_.Done(*node,
                    fmt::format("int8 {}, computed in float: {}", Describe(*node), why_float_),
                    Error(stored_filters_, *node));
      } else if (node->Is("Conv") && !untouched_.contains(key)) {
        stats_.Skip(*node, fmt::format("{}; too small to store as int8", why_float_));
      }
    }
    stats_.tensors_rewritten += static_cast<int64_t>(coded.size() + built.stored.size());
    stats_.nodes_added +=
        built.emission.nodes_added + 2 * static_cast<int64_t>(built.stored.size());
    stats_.nodes_removed += built.emission.nodes_removed;
  }

  static double Error(FilterCache& filters, const Node& product) {
    const int64_t channels = product.Is("Conv") ? product.constant_input(1)->dims()[1] : int64_t{1};
    return filters.Get(product, channels).relative_error;
  }

  void SkipAll(const std::string& reason) {
    for (const Node* node : model_.graph().TopologicalOrder()) {
      if (node->Is("Conv") && !untouched_.contains(KeyOf(*node))) stats_.Skip(*node, reason);
    }
  }

  Model& model_;
  Context& context_;
  const ConvolutionOptions& options_;
  PassStats& stats_;
  FilterCache filters_, stored_filters_;
  std::set<std::string> untouched_;  // keys of Conv and Gemm that are left alone in any case
  std::vector<ConvolutionVariant> variants_;
  std::string too_far_;    // why a variant was not adopted
  std::string why_float_;  // why convolutions that could compute in int8 do not
  Histograms histograms_;
  double speedup_ = 0;
};

}  // namespace

void QuantizeConvolutions(Model& model, Context& context, const ConvolutionOptions& options,
                          PassStats& stats) {
  ConvolutionQuantizer(model, context, options, stats).Run();
}

}  // namespace sparsefuse

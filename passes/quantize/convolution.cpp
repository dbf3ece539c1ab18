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
#include "passes/quantize/equalization.h"
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
        packing_{model, context, options.search, options.int8},
        plain_(model, packing_, options) {}

  void Run() {
    if (!FindConvolutions()) return;
    why_float_ = WhyNotStatic(model_, context_);
    variants_ = ListVariants(model_.graph(), context_, untouched_);
    if (why_float_.empty()) Calibrate();
    const ConvolutionVariant* variant = why_float_.empty() ? ChooseMeasured() : nullptr;
    if (!variant || !Adopt(*variant)) SkipAll();
  }

 private:
  // A float model with what was learnt of it.
  struct Calibrated {
    Calibrated(const Model& model, const FilterPacking& packing, const ConvolutionOptions& options)
        : model(&model),
          filters(options.packed ? FilterCache(options.bound, packing.context.threads, packing)
                                 : FilterCache(options.bound, packing.context.threads)) {}

    const Model* model;
    Histograms histograms;
    FilterCache filters;
  };

  // One way to quantise a model, carried out on a copy.
  struct Built {
    Model model;
    Emission emission;
    Calibrated* source;
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
    plain_.histograms = CollectHistograms(model_, {names.begin(), names.end()}, context_);
    for (const auto& [name, histogram] : plain_.histograms) {
      if (histogram.finite()) continue;
      why_float_ = fmt::format("tensor \"{}\" has NaN or infinite values", Printable(name));
    }
  }

  Built Build(Calibrated& source, const ConvolutionVariant& variant, RangeMethod method,
              const Corrections& corrections) {
    Built built{source.model->Clone(), {}, &source};
    const ConvolutionPlan plan =
        PlanConvolutions(built.model.graph(), context_, variant.keep_float);
    std::vector<ActivationCode> codes;
    for (const std::vector<Value*>& group : plan.measured) {
      Range range;
      for (const Value* value : group) {
        range = Union(range, ChooseRange(source.histograms.at(value->name()), method));
      }
      codes.push_back(CodeOf(range));
    }
    built.emission =
        EmitConvolutions(built.model, plan, codes, source.filters,
                         {.pad_channels = variant.pad_channels, .corrections = corrections});
    return built;
  }

  // Carries the variant out; false if that changes the outputs too much.
  bool Adopt(const ConvolutionVariant& variant) {
    Built built = BuildBest(variant);
    const Distance distance = Measure(built.model);
    if (!distance.IsClose()) {
      why_float_ =
          fmt::format("coded, the model is too far from float (cosine {:.3f}, agreement {:.3f})",
                      distance.cosine, distance.agreement);
      return false;
    }
    Report(variant, built);
    model_ = std::move(built.model);
    return true;
  }

  // Without measuring the first, "all"; null if float is not beaten.
  const ConvolutionVariant* ChooseMeasured() {
    nlohmann::json& decision = context_.decisions["quantize"]["convolution"];
    if (decision.is_object()) return Replay(decision);
    const std::optional<size_t> chosen = context_.measure ? Time() : 0;
    decision = {{"variant", chosen ? variants_[*chosen].name : std::string(kNoVariant)},
                {"speedup", std::round(speedup_ * 100) / 100}};
    why_float_ = fmt::format("int8 measured at ×{:.2f} of float's speed", speedup_);
    return chosen ? &variants_[*chosen] : nullptr;
  }

  // The variant to use; nothing if none beats float.
  std::optional<size_t> Time() {
    std::vector<Built> built;
    std::vector<std::pair<std::string, const Model*>> models;
    std::vector<uint64_t> bytes;
    built.reserve(variants_.size());
    for (const ConvolutionVariant& variant : variants_) {
      built.push_back(Build(plain_, variant, RangeMethod::kMinMax, {}));
      models.emplace_back(variant.name, &built.back().model);
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

  const ConvolutionVariant* Replay(const nlohmann::json& decision) {
    const std::string name = decision.value("variant", "");
    speedup_ = decision.value("speedup", 0.0);
    why_float_ = fmt::format("int8 was measured at ×{:.2f} of float's speed", speedup_);
    if (name == kNoVariant) return nullptr;
    for (const ConvolutionVariant& variant : variants_) {
      if (variant.name == name) return &variant;
    }
    throw UserError(ErrorCode::kConfig,
                    fmt::format("\"{}\" is no variant of this model", Printable(name)),
                    "remove \"decisions\" to measure again")
        .At("$.decisions.quantize.convolution.variant");
  }

  // The variant with the channels' and tensors' ranges, the filters and the biases that come
  // nearest to the float model on the select split.
  Built BuildBest(const ConvolutionVariant& variant) {
    std::optional<Built> best;
    RangeMethod method = kRangeMethods[0];
    double least = 0;
    const auto keep_if_nearer = [&](Built built) {
      const double error = Measure(built.model).error;
      if (best && !(error < least)) return false;
      least = error;
      best.emplace(std::move(built));
      return true;
    };
    std::vector<Calibrated*> sources = {&plain_};
    if (Equalize()) sources.push_back(&*equalised_);
    if (options_.packed && options_.search) {
      nearest_.emplace(model_, nearest_packing_, options_);
      nearest_->histograms = plain_.histograms;
      sources.push_back(&*nearest_);
    }
    for (Calibrated* source : sources) {
      for (const RangeMethod other : kRangeMethods) {
        if (keep_if_nearer(Build(*source, variant, other, {}))) method = other;
      }
    }
    if (options_.bias_correction) {
      Calibrated& source = *best->source;
      const auto quantise = [&](const Corrections& corrections) {
        Built built = Build(source, variant, method, corrections);
        return Candidate{std::move(built.model), std::move(built.emission.products)};
      };
      keep_if_nearer(
          Build(source, variant, method, CorrectBiases(*source.model, quantise, context_)));
    }
    return std::move(*best);
  }

  // The model with equalised channels, calibrated; false if there is nothing to equalise.
  bool Equalize() {
    equalised_model_ = model_.Clone();
    if (EqualizeChannels(equalised_model_, untouched_, context_) == 0) return false;
    equalised_packing_.emplace(
        FilterPacking{equalised_model_, context_, packing_.search, packing_.int8});
    equalised_.emplace(equalised_model_, *equalised_packing_, options_);
    std::vector<std::string> names;
    for (const auto& [name, histogram] : plain_.histograms) names.push_back(name);
    equalised_->histograms = CollectHistograms(equalised_model_, names, context_);
    return true;
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
  void Report(const ConvolutionVariant& variant, const Built& built) {
    std::set<std::string> coded;
    for (const EmittedProduct& product : built.emission.products) coded.insert(product.key);
    for (const Node* node : model_.graph().TopologicalOrder()) {
      const std::string key = KeyOf(*node);
      if (coded.contains(key)) {
        const Dims& dims = node->constant_input(1)->dims();
        const bool conv = node->Is("Conv");
        const QuantizedFilters& filters = built.source->filters.Get(*node, conv ? dims[1] : 1);
        stats_.Done(*node,
                    fmt::format("{} {} {}, static activations", filters.packed ? "int4" : "int8",
                                conv ? "filters" : "weight", ToString(dims)),
                    filters.relative_error);
      } else if (node->Is("Conv") && !untouched_.contains(key)) {
        stats_.Skip(*node, fmt::format("the model was measured faster so (variant {}, ×{:.2f})",
                                       variant.name, speedup_));
      }
    }
    stats_.tensors_rewritten += static_cast<int64_t>(coded.size());
    stats_.nodes_added += built.emission.nodes_added;
    stats_.nodes_removed += built.emission.nodes_removed;
  }

  void SkipAll() {
    for (const Node* node : model_.graph().TopologicalOrder()) {
      if (node->Is("Conv") && !untouched_.contains(KeyOf(*node))) stats_.Skip(*node, why_float_);
    }
  }

  Model& model_;
  Context& context_;
  const ConvolutionOptions& options_;
  PassStats& stats_;
  FilterPacking packing_;
  Calibrated plain_;
  FilterPacking nearest_packing_{model_, context_, false, options_.int8};
  std::optional<Calibrated> nearest_;  // as plain_, filters not searched for
  Model equalised_model_;
  std::optional<FilterPacking> equalised_packing_;
  std::optional<Calibrated> equalised_;
  std::set<std::string> untouched_;  // keys of Conv and Gemm that are left alone in any case
  std::vector<ConvolutionVariant> variants_;
  std::string why_float_;  // why convolutions that could be quantised are not
  double speedup_ = 0;
};

}  // namespace

void QuantizeConvolutions(Model& model, Context& context, const ConvolutionOptions& options,
                          PassStats& stats) {
  ConvolutionQuantizer(model, context, options, stats).Run();
}

}  // namespace sparsefuse

// Weights to int8: linear layers with dynamic per-token activations (QuantizedLinear8 or its
// standard spelling), convolutions as static QDQ, embedding tables as int8 rows. What is not faster
// on this machine stays in float; the whole result is kept only if it is not slower than what came
// in.

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <set>
#include <string>

#include "passes/framework/pass.h"
#include "passes/quantize/convolution.h"
#include "passes/quantize/convolution_plan.h"
#include "passes/quantize/packed_filters.h"
#include "passes/quantize/quantize_linear.h"
#include "passes/quantize/storage.h"
#include "passes/quantize/variants.h"

namespace sparsefuse {
namespace {

// "*/lm_head*" → POSIX regular expression on the whole name; `*` is any text, `?` one character.
std::string GlobToRegex(std::string_view glob) {
  std::string regex;
  for (char c : glob) {
    if (c == '*') {
      regex += ".*";
    } else if (c == '?') {
      regex += '.';
    } else {
      if (std::string_view("\\^$.|()[]{}+*?").find(c) != std::string_view::npos) regex += '\\';
      regex += c;
    }
  }
  return regex;
}

class Quantize final : public Pass {
 public:
  explicit Quantize(const Params& params) : params_(params) {}

  void Check(const Model&, const Context& context) const override {
    if (params_.String("weights") == "nested" && context.emit == Emit::kStandard) {
      throw UserError(ErrorCode::kConfig, "nested weights have no spelling in standard operators",
                      "\"emit\": \"custom\", or weights int4 or int8")
          .At("weights");
    }
    if (params_.Int("scale_inputs") % kGroupInputs != 0) {
      throw UserError(ErrorCode::kConfig,
                      fmt::format("{} is no multiple of 64", params_.Int("scale_inputs")))
          .At("scale_inputs");
    }
    if (const auto block = static_cast<uint64_t>(params_.Int("block"));
        !std::has_single_bit(block)) {
      throw UserError(ErrorCode::kConfig, fmt::format("{} is no power of two", block)).At("block");
    }
  }

  PassStats Run(Model& model, Context& context) override {
    const NodePatterns users = context.exclude_nodes;
    std::vector<std::string> patterns = users.expressions();
    for (const std::string& glob : params_.Strings("exclude")) {
      patterns.push_back(GlobToRegex(glob));
    }
    context.exclude_nodes = NodePatterns(patterns);
    const Model before = model.Clone();
    PassStats stats;
    std::set<std::string> int8_filters;
    if (params_.String("ends") == "int8") int8_filters = EndProducts(model.graph(), context);
    ToInt8(model, context, int8_filters, stats);
    const bool for_speed =
        params_.String("weights") == "int8" && params_.String("filters") == "int8";
    if (stats.changed && for_speed &&
        !NotSlower(context.teacher ? *context.teacher : before, model, context)) {
      model = before.Clone();
      stats = StayedInFloat(stats);
    }
    if (params_.Bool("storage"))
      StoreFloatWeights(model, context, PackedFilterKeys(model, int8_filters), SearchesCodes(),
                        stats);
    context.exclude_nodes = users;
    return stats;
  }

 private:
  void ToInt8(Model& model, Context& context, const std::set<std::string>& int8_filters,
              PassStats& stats) {
    const PairBound bound = PairBoundOf();
    const bool bias_correction = params_.Bool("bias_correction");
    if (params_.Bool("convolutions")) {
      QuantizeConvolutions(model, context,
                           {.bound = bound,
                            .bias_correction = bias_correction,
                            .packed = params_.String("filters") == "int4",
                            .search = SearchesCodes(),
                            .int8 = int8_filters},
                           stats);
    }
    if (model.opset() >= kMinBodyOpset && model.opset() <= kMaxBodyOpset) {
      QuantizeLinearLayers(model, context, LinearSettings(), stats);
      return;
    }
    stats.findings.push_back(
        {.subject = "model",
         .op = "",
         .action = "",
         .reason = fmt::format("linear layers stay in float: opset {} is not in {}…{}",
                               model.opset(), kMinBodyOpset, kMaxBodyOpset)});
  }

  bool SearchesCodes() const { return params_.String("feedback") != "off"; }

  // Of the convolutions that compute in float.
  std::set<std::string> PackedFilterKeys(const Model& model,
                                         const std::set<std::string>& int8_filters) const {
    std::set<std::string> keys;
    if (params_.String("filters") != "int4") return keys;
    for (const Node* node : model.graph().Nodes()) {
      const Tensor* weight = node->Is("Conv") ? node->constant_input(1) : nullptr;
      if (weight && weight->size() >= kNibbleBlock * weight->dims()[0]) keys.insert(KeyOf(*node));
    }
    for (const std::string& key : int8_filters) keys.erase(key);
    return keys;
  }

  PairBound PairBoundOf() const {
    return params_.Bool("portable") ? PairBound::kAvx2 : PairBound::kNone;
  }

  LinearOptions LinearSettings() const {
    const std::string& weights = params_.String("weights");
    const std::string& feedback = params_.String("feedback");
    LinearOptions options;
    options.bound = PairBoundOf();
    options.embeddings = params_.Bool("embeddings");
    options.widths = {.weights = weights == "int4"     ? WeightWidth::kInt4
                                 : weights == "nested" ? WeightWidth::kNested
                                 : weights == "mixed"  ? WeightWidth::kMixed
                                                       : WeightWidth::kInt8,
                      .nested = params_.String("nested_encoding") == "nested1" ? Encoding::kNested1
                                                                               : Encoding::kNested4,
                      .bits = params_.Double("bits"),
                      .ends_int8 = params_.String("ends") == "int8"};
    const std::string& scales = params_.String("scales");
    options.sequence = {.max_clusters = params_.Int("clusters"),
                        .scales = scales == "clusters" ? ScaleChoice::kClusters
                                  : scales == "absmax" ? ScaleChoice::kAbsmax
                                                       : ScaleChoice::kMeasured,
                        .student_inputs = params_.Bool("student_inputs"),
                        .bias_correction = params_.Bool("bias_correction")};
    options.feedback = feedback == "on"    ? FeedbackUse::kAlways
                       : feedback == "off" ? FeedbackUse::kNever
                                           : FeedbackUse::kMeasured;
    options.smooth = params_.Bool("smooth");
    options.share8 = params_.Double("nested_share");
    options.gate_share = params_.Double("gate_share");
    options.max_flips = params_.Double("max_flips");
    options.scale_inputs = params_.Int("scale_inputs");
    options.block = params_.Int("block");
    options.fail_on_nonfinite = params_.String("on_nonfinite") == "fail";
    return options;
  }

  // Parts that each win may still lose together (caches, an embedding's extra nodes): the whole
  // model decides. A loss must show in each of three measurements.
  bool NotSlower(const Model& original, const Model& after, Context& context) {
    nlohmann::json& decision = context.decisions["quantize"]["model"];
    if (decision.is_object()) return decision.value("form", "int8") == "int8";
    if (!context.measure || !context.calibration) return true;
    const std::vector<int64_t> batches = BatchesToTime(*context.calibration);
    const std::pair<std::string, const Model*> variant{"int8", &after};
    bool faster = false;
    for (int attempt = 0; attempt < 3 && !faster; ++attempt) {
      const VariantTiming timing =
          TimeVariants(original, {&variant, 1}, *context.calibration, batches, context).front();
      faster = timing.geometric_mean >= 1 &&
               *std::min_element(timing.ratio_per_batch.begin(), timing.ratio_per_batch.end()) >=
                   kNotSlower;
      speedup_ = timing.geometric_mean;
    }
    decision = {{"form", faster ? "int8" : "float"}, {"speedup", std::round(speedup_ * 100) / 100}};
    return faster;
  }

  PassStats StayedInFloat(const PassStats& lost) const {
    PassStats stats;
    for (Finding finding : lost.findings) {
      if (!finding.action.empty()) {
        finding.reason = speedup_ > 0
                             ? fmt::format("the whole model was slower in int8 (×{:.2f})", speedup_)
                             : "the whole model was slower in int8 (recorded decision)";
        finding.action.clear();
        finding.error = -1;
      }
      stats.findings.push_back(std::move(finding));
    }
    return stats;
  }

  double speedup_ = 0;  // of the whole model, measured in this run
  Params params_;
};

}  // namespace

extern const PassInfo kQuantize;
const PassInfo kQuantize =
    {.name = "quantize",
     .summary = "linear layers, convolutions and embeddings to int8, where that is faster here",
     .exactness = Exactness::kLossy,
     .params =
         {{.name = "weights",
           .otherwise = std::string("int8"),
           .summary = "Type of the linear layers' weights: int8; int4; nested, an int4 inside "
                      "each int8; mixed, int4 and int8 by layer.",
           .choices = {"int8", "int4", "nested", "mixed"}},
          {.name = "filters",
           .otherwise = std::string("int8"),
           .summary = "Type of the filters of convolutions: int8; int4, stored in half the bytes "
                      "and computed in 8 bits all the same.",
           .choices = {"int8", "int4"}},
          {.name = "bits",
           .otherwise = 6.0,
           .summary = "Of mixed: bits a weight on average.",
           .min = 4,
           .max = 8},
          {.name = "ends",
           .otherwise = std::string("int8"),
           .summary = "First and last linear layers and convolutions: int8, or as the others.",
           .choices = {"int8", "same"}},
          {.name = "feedback",
           .otherwise = std::string("measured"),
           .summary = "Feed each weight's rounding error forward to later inputs (GPTQ): where "
                      "it is measured to help, always or never (needs data).",
           .choices = {"measured", "on", "off"}},
          {.name = "student_inputs",
           .otherwise = true,
           .summary = "Quantise each layer on what the quantised layers before it give, not "
                      "on the original's inputs."},
          {.name = "smooth",
           .otherwise = true,
           .summary = "Smooth activations against weights where that lowers a layer's error "
                      "(SmoothQuant; needs data and this tool's operators)."},
          {.name = "scales",
           .otherwise = std::string("measured"),
           .summary = "Of linear weights: fusion clusters, absmax, or whichever has the smaller "
                      "block error.",
           .choices = {"measured", "clusters", "absmax"}},
          {.name = "clusters",
           .otherwise = int64_t{64},
           .summary = "Most different scales in one linear weight.",
           .min = 1,
           .max = 256},
          {.name = "scale_inputs",
           .otherwise = int64_t{512},
           .summary = "Inputs that share a scale in int4 and nested weights, a multiple of 64.",
           .min = 64,
           .max = 65536},
          {.name = "block",
           .otherwise = int64_t{128},
           .summary = "Inputs that share a scale in int4 weights of standard operators "
                      "(MatMulNBits), a power of two.",
           .min = 16,
           .max = 256},
          {.name = "nested_encoding",
           .otherwise = std::string("nested4"),
           .summary = "Of nested weights: 16·h + l (nested1) or 4·h + l (nested4).",
           .choices = {"nested1", "nested4"}},
          {.name = "nested_share",
           .otherwise = 0.5,
           .summary = "Of nested weights: how much the 8-bit reading counts against the 4-bit "
                      "reading.",
           .min = 0,
           .max = 1},
          {.name = "gate_share",
           .otherwise = 0.5,
           .summary = "Of nested weights: share of the rows that may be read in 4 bits, those that "
                      "lose least, where at most 8 rows come at a time (needs data); 0: none.",
           .min = 0,
           .max = 1},
          {.name = "max_flips",
           .otherwise = 0.01,
           .summary = "Share of the answers that this may change; gate_share gives way.",
           .min = 0,
           .max = 1},
          {.name = "on_nonfinite",
           .otherwise = std::string("skip"),
           .summary = "Linear weights with NaN or infinity: leave the layer in float, or fail.",
           .choices = {"skip", "fail"}},
          {.name = "exclude",
           .otherwise = std::vector<std::string>{},
           .summary = "Node names that stay in float; * and ? match as in file names."},
          {.name = "convolutions",
           .otherwise = true,
           .summary = "Quantise convolutions (static QDQ; needs calibration data)."},
          {.name = "embeddings",
           .otherwise = true,
           .summary = "Store embedding tables as int8 rows."},
          {.name = "bias_correction",
           .otherwise = true,
           .summary = "Correct biases for the mean error of the weights (needs data)."},
          {.name = "storage",
           .otherwise = true,
           .summary = "Store weights as int8 also where a layer computes in float; they are "
                      "unpacked once, at load."},
          {.name = "portable",
           .otherwise = true,
           .summary = "Bound pairs of weights so that integer products are exact on CPUs "
                      "without VNNI, too."}},
     .make = [](const Params& params) -> std::unique_ptr<Pass> {
       return std::make_unique<Quantize>(params);
     }};

}  // namespace sparsefuse

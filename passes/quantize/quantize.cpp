// Weights to int8: linear layers with dynamic per-token activations (QuantizedLinear8 or its
// standard spelling), convolutions as static QDQ, embedding tables as int8 rows. What is not faster
// on this machine stays in float; the whole result is kept only if it is not slower than what came
// in.

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "passes/framework/pass.h"
#include "passes/quantize/convolution.h"
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

  PassStats Run(Model& model, Context& context) override {
    const NodePatterns users = context.exclude_nodes;
    std::vector<std::string> patterns = users.expressions();
    for (const std::string& glob : params_.Strings("exclude")) {
      patterns.push_back(GlobToRegex(glob));
    }
    context.exclude_nodes = NodePatterns(patterns);
    const Model before = model.Clone();
    PassStats stats;
    ToInt8(model, context, stats);
    if (stats.changed && !NotSlower(context.teacher ? *context.teacher : before, model, context)) {
      model = before.Clone();
      stats = StayedInFloat(stats);
    }
    if (params_.Bool("storage")) StoreFloatWeights(model, context, stats);
    context.exclude_nodes = users;
    return stats;
  }

 private:
  void ToInt8(Model& model, Context& context, PassStats& stats) {
    const PairBound bound = params_.Bool("portable") ? PairBound::kAvx2 : PairBound::kNone;
    const bool bias_correction = params_.Bool("bias_correction");
    if (params_.Bool("convolutions")) {
      QuantizeConvolutions(model, context, {.bound = bound, .bias_correction = bias_correction},
                           stats);
    }
    if (model.opset() >= kMinBodyOpset && model.opset() <= kMaxBodyOpset) {
      QuantizeLinearLayers(model, context,
                           {.bound = bound,
                            .bias_correction = bias_correction,
                            .embeddings = params_.Bool("embeddings")},
                           stats);
      return;
    }
    stats.findings.push_back(
        {.subject = "model",
         .op = "",
         .action = "",
         .reason = fmt::format("linear layers stay in float: opset {} is not in {}…{}",
                               model.opset(), kMinBodyOpset, kMaxBodyOpset)});
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
const PassInfo kQuantize = {
    .name = "quantize",
    .summary = "linear layers, convolutions and embeddings to int8, where that is faster here",
    .exactness = Exactness::kLossy,
    .params = {{.name = "weights",
                .otherwise = std::string("int8"),
                .summary = "Type of the quantised weights.",
                .choices = {"int8"}},
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

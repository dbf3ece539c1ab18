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
    PassStats stats;
    if (params_.Bool("convolutions")) {
      QuantizeConvolutions(model, context, ConvolutionOptions{}, stats);
    }
    if (model.opset() < kMinBodyOpset || model.opset() > kMaxBodyOpset) {
      stats.findings.push_back(
          {.subject = "model",
           .op = "",
           .action = "",
           .reason = fmt::format("linear layers stay in float: opset {} is not "
                                 "in {}…{}",
                                 model.opset(), kMinBodyOpset, kMaxBodyOpset)});
    } else {
      Linear(model, context, stats);
    }
    if (params_.Bool("storage")) StoreFloatWeights(model, context, stats);
    context.exclude_nodes = users;
    return stats;
  }

 private:
  void Linear(Model& model, Context& context, PassStats& stats) {
    const LinearOptions options{
        .bound = params_.Bool("portable") ? PairBound::kAvx2 : PairBound::kNone,
        .bias_correction = params_.Bool("bias_correction"),
        .embeddings = params_.Bool("embeddings")};
    const Model before = model.Clone();
    PassStats linear;
    QuantizeLinearLayers(model, context, options, linear);
    if (linear.changed && !NotSlower(before, model, context, linear)) model = before.Clone();
    stats.changed |= linear.changed;
    stats.nodes_added += linear.nodes_added;
    stats.nodes_removed += linear.nodes_removed;
    stats.tensors_rewritten += linear.tensors_rewritten;
    stats.findings.insert(stats.findings.end(), linear.findings.begin(), linear.findings.end());
  }

  // Layers that each win may still lose together (caches, the embeddings' extra nodes): the whole
  // model decides. On a loss `stats` becomes a report of what stays in float.
  bool NotSlower(const Model& before, const Model& after, Context& context, PassStats& stats) {
    nlohmann::json& decision = context.decisions["quantize"]["linear_speedup"];
    if (!decision.is_number()) {
      if (!context.measure || !context.calibration) return true;
      const int64_t fixed = context.calibration->fixed_batch();
      const std::vector<int64_t> batches =
          fixed ? std::vector<int64_t>{fixed} : std::vector<int64_t>{1, 8};
      const std::pair<std::string, const Model*> variant{"int8", &after};
      const VariantTiming timing =
          TimeVariants(before, {&variant, 1}, *context.calibration, batches, context).front();
      decision = std::round(timing.geometric_mean * 100) / 100;
    }
    const double speedup = decision.get<double>();
    if (speedup >= 1) return true;
    for (Finding& finding : stats.findings) {
      if (finding.action.empty()) continue;
      finding.action.clear();
      finding.error = -1;
      finding.reason = fmt::format("whole model measured slower in int8 (×{:.2f})", speedup);
    }
    stats = PassStats{.findings = std::move(stats.findings)};
    return false;
  }

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

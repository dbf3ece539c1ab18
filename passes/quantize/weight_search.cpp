#include "passes/quantize/weight_search.h"

#include <algorithm>
#include <limits>
#include <optional>

#include "onnx_io/error.h"
#include "passes/quantize/descent.h"

namespace sparsefuse {
namespace {

std::vector<float> Importance(const Eigen::MatrixXd* h) {
  std::vector<float> importance;
  if (h) {
    for (Eigen::Index k = 0; k < h->rows(); ++k) {
      importance.push_back(static_cast<float>(std::max((*h)(k, k), 0.0)));
    }
  }
  return importance;
}

class Search {
 public:
  explicit Search(const WeightRequest& request)
      : request_(request), judge_(request.select ? *request.select : Eigen::MatrixXd()) {
    energy_ = std::max(BlockError(request.weight, {}, judge_, request.threads), 1e-300);
    if (request.fit && request.feedback != FeedbackUse::kNever) {
      const DampedCholesky damped = Decompose(*request.fit);
      factor_ = FeedbackFactor(damped);
      damping_ = damped.damping;
    }
  }

  CodedWeight Run() {
    const WeightRowsView& weight = request_.weight;
    const CellScales absmax = AbsmaxScales(weight, request_.width, request_.rule.encoding);
    const double plain_error = Code(absmax, ScaleSource::kAbsmax, false).error;
    std::optional<CodedWeight> best;
    const auto consider = [&](const CellScales& scales, ScaleSource source) {
      CodedWeight coded = Best(scales, source);
      if (!best || Better(coded, *best)) best = std::move(coded);
    };
    if (request_.scales != ScaleChoice::kAbsmax) {
      consider(SearchScales(weight, request_.width, Importance(request_.fit), request_.rule,
                            request_.max_clusters, request_.threads),
               ScaleSource::kClusters);
    }
    if (request_.scales != ScaleChoice::kClusters) consider(absmax, ScaleSource::kAbsmax);
    if (request_.scales == ScaleChoice::kMeasured && request_.width < weight.inputs) {
      consider(AbsmaxScales(weight, weight.inputs, request_.rule.encoding),
               ScaleSource::kPerOutput);
    }
    const bool coarse = best->encoding != Encoding::kInt8 && !request_.rule.IsBounded();
    if (best->feedback && coarse) Descend(*best);
    best->plain_error = plain_error;
    return std::move(*best);
  }

 private:
  double Loss(const CodedWeight& coded) const {
    const double share = IsNested(coded.encoding) ? request_.rule.share8 : 1;
    return share * coded.error + (1 - share) * coded.error_high;
  }
  bool Better(const CodedWeight& a, const CodedWeight& b) const { return Loss(a) < Loss(b); }

  CodedWeight Code(const CellScales& scales, ScaleSource source, bool feedback) const {
    CodedWeight coded{.scales = scales,
                      .encoding = request_.rule.encoding,
                      .source = source,
                      .feedback = feedback};
    coded.codes = RoundWeights(request_.weight, scales, request_.rule,
                               feedback ? &*factor_ : nullptr, request_.threads);
    Judge(coded);
    return coded;
  }

  void Judge(CodedWeight& coded) const {
    coded.error = Error(coded, Reading::kFull);
    if (IsNested(coded.encoding)) coded.error_high = Error(coded, Reading::kHigh);
  }

  // Feedback decides input after input; with all decided, some codes have better places.
  void Descend(CodedWeight& coded) const {
    CodedWeight moved = coded;
    Eigen::MatrixXd h = *request_.fit;
    h.diagonal().array() += damping_;
    DescendWeights(request_.weight, moved.scales, request_.rule, h, request_.threads, moved.codes);
    Judge(moved);
    if (Better(moved, coded)) coded = std::move(moved);
  }

  double Error(const CodedWeight& coded, Reading reading) const {
    const std::vector<float> rows =
        Decode(coded.codes, coded.scales, request_.weight.inputs, coded.encoding, reading);
    return BlockError(request_.weight, rows, judge_, request_.threads) / energy_;
  }

  CodedWeight Best(const CellScales& scales, ScaleSource source) const {
    if (!factor_) return Code(scales, source, false);
    CodedWeight with = Code(scales, source, true);
    if (request_.feedback == FeedbackUse::kAlways) return with;
    CodedWeight without = Code(scales, source, false);
    return Better(without, with) ? without : with;
  }

  const WeightRequest& request_;
  Eigen::MatrixXd judge_;
  double energy_ = 1;
  std::optional<Eigen::MatrixXd> factor_;
  double damping_ = 0;  // of factor_
};

}  // namespace

std::string_view ScaleSourceName(ScaleSource source) {
  switch (source) {
    case ScaleSource::kClusters:
      return "fusion clusters";
    case ScaleSource::kAbsmax:
      return "absmax scales";
    case ScaleSource::kPerOutput:
      return "absmax scales of whole outputs";
  }
  return "";
}

CodedWeight SearchWeight(const WeightRequest& request) { return Search(request).Run(); }

QuantizedWeight ToOperatorWeight(const CodedWeight& coded, int64_t inputs, int64_t outputs) {
  const CellScales& scales = coded.scales;
  SF_CHECK(scales.cells_per_row == 1 || scales.width % kGroupInputs == 0);
  QuantizedWeight weight;
  weight.inputs = inputs;
  weight.outputs = outputs;
  weight.encoding = coded.encoding;
  weight.codes = coded.codes;
  weight.scale_groups = scales.cells_per_row == 1 ? 0 : scales.width / kGroupInputs;
  weight.scale_base = scales.base;
  const int64_t cells = scales.cells_per_row;
  weight.scale_codes.resize(static_cast<size_t>(PanelCount(outputs) * cells * kPanelOutputs));
  for (int64_t n = 0; n < outputs; ++n) {
    for (int64_t c = 0; c < cells; ++c) {
      const int64_t row = n / kPanelOutputs * cells + c;
      weight.scale_codes[static_cast<size_t>(row * kPanelOutputs + n % kPanelOutputs)] =
          scales.codes[static_cast<size_t>(n * cells + c)];
    }
  }
  return weight;
}

}  // namespace sparsefuse

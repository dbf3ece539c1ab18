#include "passes/quantize/smoothing.h"

#include <algorithm>
#include <cmath>

#include "passes/quantize/feedback.h"

namespace sparsefuse {
namespace {

constexpr double kLeastGain = 0.97;   // of the error without smoothing
constexpr int64_t kMostOutputs = 64;  // sampled evenly
constexpr double kLeastFactor = 1e-3, kMostFactor = 1e3;
constexpr int64_t kUnmerged = 256;

// quant8 and back, row by row, as the operators do it.
ActivationRows QuantizedRows(const ActivationRows& x) {
  ActivationRows rows(x.rows(), x.cols());
  for (Eigen::Index r = 0; r < x.rows(); ++r) {
    const float largest = x.cols() == 0 ? 0 : x.row(r).cwiseAbs().maxCoeff();
    const float scale = std::max(largest / 127, 0x1p-126f);
    for (Eigen::Index k = 0; k < x.cols(); ++k) {
      rows(r, k) = static_cast<float>(RoundHalfEven(x(r, k) / scale)) * scale;
    }
  }
  return rows;
}

}  // namespace

std::vector<float> SmoothFactors(const ActivationRows& x, const WeightRowsView& weight,
                                 double alpha) {
  std::vector<float> smooth(static_cast<size_t>(weight.inputs), 1);
  for (int64_t k = 0; k < weight.inputs; ++k) {
    const double input = x.rows() == 0 ? 0 : x.col(k).cwiseAbs().maxCoeff();
    double largest = 0;
    for (int64_t n = 0; n < weight.outputs; ++n) {
      largest = std::max<double>(
          largest, std::fabs(weight.rows[static_cast<size_t>(n * weight.inputs + k)]));
    }
    if (input == 0 || largest == 0) continue;
    const double factor = std::pow(largest, 1 - alpha) / std::pow(input, alpha);
    smooth[static_cast<size_t>(k)] =
        static_cast<float>(std::clamp(factor, kLeastFactor, kMostFactor));
  }
  return smooth;
}

double ProductError(const ActivationRows& x, const WeightRowsView& weight, int64_t width,
                    const RoundingRule& rule, std::span<const float> smooth) {
  ActivationRows activations = x;
  std::vector<float> rows(weight.rows.begin(), weight.rows.end());
  if (!smooth.empty()) {
    for (int64_t k = 0; k < weight.inputs; ++k) {
      activations.col(k) *= smooth[static_cast<size_t>(k)];
    }
    for (size_t i = 0; i < rows.size(); ++i) {
      rows[i] /= smooth[i % static_cast<size_t>(weight.inputs)];
    }
  }
  std::vector<float> importance;
  for (int64_t k = 0; k < weight.inputs; ++k) {
    importance.push_back(activations.col(k).squaredNorm());
  }
  const WeightRowsView view{rows, weight.inputs, weight.outputs};
  const CellScales scales = SearchScales(view, width, importance, rule, kUnmerged, 1);
  const std::vector<int8_t> codes = RoundWeights(view, scales, rule, nullptr, 1);
  const auto matrix = [&](std::span<const float> values) {
    return Eigen::Map<const ActivationRows>(values.data(), weight.outputs, weight.inputs);
  };
  const ActivationRows wanted = x * matrix(weight.rows).transpose();
  const ActivationRows quantized = QuantizedRows(activations);
  const auto error = [&](Reading reading) {
    const std::vector<float> coded = Decode(codes, scales, weight.inputs, rule.encoding, reading);
    return (wanted - quantized * matrix(coded).transpose()).cast<double>().squaredNorm() /
           static_cast<double>(std::max<Eigen::Index>(1, wanted.size()));
  };
  const double full = error(Reading::kFull);
  if (!IsNested(rule.encoding)) return full;
  return std::pow(full, rule.share8) * std::pow(error(Reading::kHigh), 1 - rule.share8);
}

Smoothing ChooseSmoothing(const ActivationRows& x, const WeightRowsView& weight, int64_t width,
                          const RoundingRule& rule) {
  const int64_t stride = (weight.outputs + kMostOutputs - 1) / kMostOutputs;
  std::vector<float> sample;
  for (int64_t n = 0; n < weight.outputs; n += stride) {
    const std::span<const float> row = weight.Row(n);
    sample.insert(sample.end(), row.begin(), row.end());
  }
  const WeightRowsView sampled{sample, weight.inputs,
                               static_cast<int64_t>(sample.size()) / weight.inputs};
  Smoothing best;
  double least = ProductError(x, sampled, width, rule, {}) * kLeastGain;
  for (const double alpha : kSmoothingGrid) {
    std::vector<float> smooth = SmoothFactors(x, weight, alpha);
    const double error = ProductError(x, sampled, width, rule, smooth);
    if (!(error < least)) continue;
    least = error;
    best = {alpha, std::move(smooth)};
  }
  return best;
}

double ZeroCodeShare(const ActivationRows& x) {
  if (x.size() == 0) return 0;
  const ActivationRows quantized = QuantizedRows(x);
  return static_cast<double>((quantized.array() == 0).count()) / static_cast<double>(x.size());
}

}  // namespace sparsefuse

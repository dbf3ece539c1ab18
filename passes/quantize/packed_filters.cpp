#include "passes/quantize/packed_filters.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "onnx_io/error.h"
#include "passes/framework/parallel.h"
#include "passes/quantize/descent.h"
#include "passes/quantize/feedback.h"
#include "passes/quantize/rounding.h"
#include "passes/statistics/dense.h"

namespace sparsefuse {
namespace {

using Eigen::Index;
using Eigen::MatrixXd;
using Eigen::VectorXd;

constexpr int kMostMultiplier = 8;
// Codes that max|w| is worth: from a little room above it to a little clipping (7·8 = 56).
constexpr int kFewestPackedSteps = 40;
constexpr int kMostPackedSteps = 72;

int8_t Nearest(double w, double step) {
  return RoundPlain({.encoding = Encoding::kInt4}, w / step, 128);
}

// One filter on its way to codes.
class Filter {
 public:
  explicit Filter(std::span<const float> row) : row_(row), codes_(row.size()) {}

  // The scale and the multipliers; `importance` as in QuantizeLinearWeight, or empty.
  void ChooseSteps(std::span<const double> importance) {
    float largest = 0;
    for (const float w : row_) largest = std::max(largest, std::fabs(w));
    multipliers_.assign((row_.size() + kNibbleBlock - 1) / kNibbleBlock, 1);
    if (!(largest / kMostPackedSteps >= std::numeric_limits<float>::min())) return;  // all zeros
    double least = std::numeric_limits<double>::infinity();
    for (int steps = kFewestPackedSteps; steps <= kMostPackedSteps; ++steps) {
      const float scale = largest / static_cast<float>(steps);
      std::vector<uint8_t> multipliers;
      double error = 0;
      for (size_t block = 0; block < multipliers_.size(); ++block) {
        double best = std::numeric_limits<double>::infinity();
        for (int multiplier = 1; multiplier <= kMostMultiplier; ++multiplier) {
          const double here =
              BlockErrorOf(block, static_cast<double>(scale) * multiplier, importance);
          if (multiplier > 1 && !(here < best)) continue;
          best = here;
          multipliers.resize(block + 1);
          multipliers.back() = static_cast<uint8_t>(multiplier);
        }
        error += best;
      }
      if (!(error < least)) continue;
      least = error;
      scale_ = scale;
      multipliers_ = std::move(multipliers);
    }
  }

  void RoundNearest() {
    for (size_t k = 0; k < row_.size(); ++k) codes_[k] = Nearest(row_[k], Step(k));
  }

  // Each error goes to the weights that are still to come; `factor` as in feedback.h.
  void RoundWithFeedback(const MatrixXd& factor) {
    VectorXd wanted(static_cast<Index>(row_.size()));
    for (size_t k = 0; k < row_.size(); ++k) wanted(static_cast<Index>(k)) = row_[k];
    for (Index k = 0; k < wanted.size(); ++k) {
      const double step = Step(static_cast<size_t>(k));
      const int8_t code = Nearest(wanted(k), step);
      codes_[static_cast<size_t>(k)] = code;
      const double miss = (wanted(k) - step * code) / factor(k, k);
      const Index rest = wanted.size() - k - 1;
      wanted.tail(rest) -= miss * factor.row(k).tail(rest).transpose();
    }
  }

  void Descend(const MatrixXd& h) {
    std::vector<double> steps(row_.size());
    for (size_t k = 0; k < steps.size(); ++k) steps[k] = Step(k);
    DescendRow({.encoding = Encoding::kInt4}, row_, steps, h, {}, codes_);
  }

  // Writes row `m` of the result; returns Σ(w − ŵ)².
  double Store(PackedFilters& packed, size_t m) const {
    double error = 0;
    for (size_t k = 0; k < row_.size(); ++k) {
      packed.nibbles[m * row_.size() + k] = codes_[k];
      const double miss = row_[k] - Step(k) * codes_[k];
      error += miss * miss;
    }
    std::copy(multipliers_.begin(), multipliers_.end(),
              packed.multipliers.begin() + static_cast<ptrdiff_t>(m * multipliers_.size()));
    packed.scales[m] = scale_;
    return error;
  }

 private:
  double Step(size_t k) const {
    return static_cast<double>(scale_) * multipliers_[k / static_cast<size_t>(kNibbleBlock)];
  }

  double BlockErrorOf(size_t block, double step, std::span<const double> importance) const {
    const size_t first = block * static_cast<size_t>(kNibbleBlock);
    const size_t last = std::min(first + static_cast<size_t>(kNibbleBlock), row_.size());
    double error = 0;
    for (size_t k = first; k < last; ++k) {
      const double miss = row_[k] - step * Nearest(row_[k], step);
      error += miss * miss * (importance.empty() ? 1 : importance[k]);
    }
    return error;
  }

  std::span<const float> row_;
  float scale_ = 1;
  std::vector<uint8_t> multipliers_;
  std::vector<int8_t> codes_;
};

}  // namespace

std::vector<int8_t> PackedFilters::Codes() const {
  std::vector<int8_t> codes(nibbles.size());
  for (size_t i = 0; i < codes.size(); ++i) {
    const auto at = static_cast<int64_t>(i);
    const int64_t block = at / length * blocks() + at % length / kNibbleBlock;
    codes[i] = static_cast<int8_t>(nibbles[i] * multipliers[static_cast<size_t>(block)]);
  }
  return codes;
}

PackedFilters RoundFilters(std::span<const float> rows, int64_t filters,
                           const Eigen::MatrixXd* gram, int threads) {
  PackedFilters packed{.filters = filters,
                       .length = filters ? static_cast<int64_t>(rows.size()) / filters : 0};
  packed.nibbles.resize(rows.size());
  packed.multipliers.resize(static_cast<size_t>(filters * packed.blocks()));
  packed.scales.resize(static_cast<size_t>(filters));
  std::vector<double> importance;
  MatrixXd h, factor;
  if (gram) {
    SF_CHECK(gram->rows() == packed.length && gram->cols() == packed.length);
    const VectorXd squares = gram->diagonal();
    importance.assign(squares.begin(), squares.end());
    const DampedCholesky damped = Decompose(*gram);
    factor = FeedbackFactor(damped);
    h = *gram;
    h.diagonal().array() += damped.damping;
  }
  std::vector<double> errors(static_cast<size_t>(filters));
  ForEachIndex(threads, errors.size(), [&](size_t m) {
    const auto length = static_cast<size_t>(packed.length);
    Filter filter(rows.subspan(m * length, length));
    filter.ChooseSteps(importance);
    filter.RoundNearest();
    if (gram) {
      filter.RoundWithFeedback(factor);
      filter.Descend(h);
    }
    errors[m] = filter.Store(packed, m);
  });
  double error = 0, energy = 0;
  for (const double e : errors) error += e;
  for (const float w : rows) energy += static_cast<double>(w) * w;
  packed.relative_error = energy > 0 ? std::sqrt(error / energy) : 0;
  return packed;
}

}  // namespace sparsefuse

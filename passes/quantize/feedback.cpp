#include "passes/quantize/feedback.h"

#include <algorithm>
#include <cstdlib>

#include "onnx_io/error.h"
#include "passes/framework/parallel.h"

namespace sparsefuse {
namespace {

using Eigen::Index;
using Eigen::MatrixXd;
// Inputs down, the outputs of one panel across: what one step updates lies together.
using Columns = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

constexpr Index kStepInputs = 128;

// Rounds the 32 outputs from `first_output` on. The products of Eigen have the same shapes for any
// number of threads, so they round the same.
class PanelRounder {
 public:
  PanelRounder(const WeightRowsView& weight, const CellScales& scales, const RoundingRule& rule,
               const MatrixXd* factor, const std::vector<bool>& zero_blocks, int64_t panel)
      : weight_(weight),
        scales_(scales),
        rule_(rule),
        factor_(factor),
        zero_blocks_(zero_blocks),
        panel_(panel),
        first_output_(panel * kPanelOutputs),
        outputs_(std::min(kPanelOutputs, weight.outputs - first_output_)) {}

  void Run(std::span<int8_t> codes) {
    const bool nested = IsNested(rule_.encoding);
    full_.resize(weight_.inputs, outputs_);
    for (int64_t c = 0; c < outputs_; ++c) {
      const std::span<const float> row = weight_.Row(first_output_ + c);
      for (int64_t k = 0; k < weight_.inputs; ++k) full_(k, c) = row[static_cast<size_t>(k)];
    }
    if (nested) high_ = full_;
    const Index step = factor_ ? kStepInputs : weight_.inputs;
    for (Index start = 0; start < weight_.inputs; start += step) {
      const Index count = std::min<Index>(step, weight_.inputs - start);
      full_error_.setZero(count, outputs_);
      if (nested) high_error_.setZero(count, outputs_);
      for (Index k = 0; k < count; ++k) {
        if ((start + k) % scales_.width == 0) ReadScales(start + k);
        RoundInput(start + k, k, codes);
        if (!factor_) continue;
        Spread(full_, full_error_, start, k, count);
        if (nested) Spread(high_, high_error_, start, k, count);
      }
      const Index rest = weight_.inputs - start - count;
      if (!factor_ || rest == 0) continue;
      const auto beyond = factor_->block(start, start + count, count, rest).transpose();
      full_.bottomRows(rest).noalias() -= beyond * full_error_;
      if (nested) high_.bottomRows(rest).noalias() -= beyond * high_error_;
    }
  }

 private:
  // To the other inputs of the same step.
  void Spread(Columns& weights, const Columns& errors, Index start, Index k, Index count) {
    for (Index j = k + 1; j < count; ++j) {
      weights.row(start + j) -= (*factor_)(start + k, start + j) * errors.row(k);
    }
  }

  void ReadScales(Index input) {
    scale_.resize(static_cast<size_t>(outputs_));
    for (int64_t c = 0; c < outputs_; ++c) {
      scale_[static_cast<size_t>(c)] = scales_.Scale(first_output_ + c, input);
    }
  }

  void RoundInput(Index input, Index place, std::span<int8_t> codes) {
    const int64_t quads = (weight_.inputs + 3) / 4;
    const bool zero = zero_blocks_[static_cast<size_t>(panel_ * quads + input / 4)];
    for (int64_t c = 0; c < outputs_; ++c) {
      int8_t& code = codes[static_cast<size_t>((first_output_ + c) * weight_.inputs + input)];
      const double scale = scale_[static_cast<size_t>(c)];
      const int most = rule_.IsBounded() ? MostOf(input, c, scale, codes) : 128;
      double miss = 0, miss_high = 0;  // of what is wanted now, in units of weights
      if (zero) {
        code = 0;
        miss = full_(input, c);
        if (IsNested(rule_.encoding)) miss_high = high_(input, c);
      } else if (IsNested(rule_.encoding)) {
        double misses[2];
        code = RoundNested(rule_, full_(input, c) / scale, high_(input, c) / scale, most, misses);
        miss = misses[0] * scale;
        miss_high = misses[1] * scale;
      } else {
        code = RoundPlain(rule_, full_(input, c) / scale, most);
        miss = full_(input, c) - scale * code;
      }
      if (!factor_) continue;
      const double pivot = (*factor_)(input, input);
      full_error_(place, c) = miss / pivot;
      if (IsNested(rule_.encoding)) high_error_(place, c) = miss_high / pivot;
    }
  }

  // The bound on a code's magnitude that its pair leaves. The first of a pair gives way by half of
  // what the two would exceed it if the second came as it is now.
  int MostOf(Index input, int64_t c, double scale, std::span<const int8_t> codes) const {
    const auto at = static_cast<size_t>((first_output_ + c) * weight_.inputs + input);
    const double wanted = full_(input, c);
    if (input % 2 == 1) {
      const int first = DecodeWeight(rule_.encoding, codes[at - 1]);
      return first != 0 && (first > 0) == (wanted > 0) ? kMostOfPair - std::abs(first) : 127;
    }
    if (input + 1 == weight_.inputs) return 127;
    const double next = full_(input + 1, c);
    if ((wanted > 0) != (next > 0)) return 127;
    const auto units = [scale](double w) {
      return static_cast<int>(std::min(RoundHalfEven(std::fabs(w) / scale), 127.0));
    };
    const int excess = units(wanted) + units(next) - kMostOfPair;
    return excess > 0 ? units(wanted) - (excess + 1) / 2 : 127;
  }

  const WeightRowsView& weight_;
  const CellScales& scales_;
  const RoundingRule& rule_;
  const MatrixXd* factor_;
  const std::vector<bool>& zero_blocks_;
  int64_t panel_, first_output_, outputs_;
  std::vector<double> scale_;        // of the inputs that are being rounded
  Columns full_, high_;              // what the readings should still give
  Columns full_error_, high_error_;  // of one step, over the pivots
};

}  // namespace

Eigen::MatrixXd FeedbackFactor(const DampedCholesky& h) {
  const MatrixXd inverse = h.Inverse();
  const Eigen::LLT<MatrixXd> factor(inverse);
  SF_CHECK(factor.info() == Eigen::Success, "the inverse of a damped matrix has no factor");
  return factor.matrixU();
}

std::vector<int8_t> RoundWeights(const WeightRowsView& weight, const CellScales& scales,
                                 const RoundingRule& rule, const Eigen::MatrixXd* factor,
                                 int threads) {
  SF_CHECK(!factor || (factor->rows() == weight.inputs && factor->cols() == weight.inputs));
  std::vector<int8_t> codes(weight.rows.size());
  const std::vector<bool> zero_blocks = ZeroBlocks(weight.rows, weight.inputs, weight.outputs);
  ForEachIndex(threads, static_cast<size_t>(PanelCount(weight.outputs)), [&](size_t index) {
    const auto panel = static_cast<int64_t>(index);
    PanelRounder(weight, scales, rule, factor, zero_blocks, panel).Run(codes);
  });
  return codes;
}

std::vector<float> Decode(std::span<const int8_t> codes, const CellScales& scales, int64_t inputs,
                          Encoding encoding, Reading reading) {
  std::vector<float> rows(codes.size());
  float scale = 0;
  for (size_t i = 0; i < codes.size(); ++i) {
    const auto at = static_cast<int64_t>(i);
    if (at % inputs % scales.width == 0) scale = scales.Scale(at / inputs, at % inputs);
    const int value = reading == Reading::kHigh ? DecodeHigh(encoding, codes[i])
                                                : DecodeWeight(encoding, codes[i]);
    rows[i] = scale * static_cast<float>(value);
  }
  return rows;
}

double BlockError(const WeightRowsView& weight, std::span<const float> other,
                  const Eigen::MatrixXd& h, int threads) {
  const int64_t panels = PanelCount(weight.outputs);
  std::vector<double> errors(static_cast<size_t>(panels));
  ForEachIndex(threads, static_cast<size_t>(panels), [&](size_t index) {
    const auto panel = static_cast<int64_t>(index);
    const int64_t first = panel * kPanelOutputs;
    const int64_t count = std::min(kPanelOutputs, weight.outputs - first);
    MatrixXd difference(weight.inputs, count);
    for (int64_t c = 0; c < count; ++c) {
      for (int64_t k = 0; k < weight.inputs; ++k) {
        const auto i = static_cast<size_t>((first + c) * weight.inputs + k);
        difference(k, c) = weight.rows[i] - (other.empty() ? 0.0 : other[i]);
      }
    }
    errors[static_cast<size_t>(panel)] =
        h.size() == 0 ? difference.squaredNorm() : (h * difference).cwiseProduct(difference).sum();
  });
  double sum = 0;
  for (const double error : errors) sum += error;
  return sum;
}

template <typename T>
std::vector<bool> ZeroBlocks(std::span<const T> rows, int64_t inputs, int64_t outputs) {
  const int64_t quads = (inputs + 3) / 4;
  std::vector<bool> zero(static_cast<size_t>(PanelCount(outputs) * quads), true);
  for (int64_t n = 0; n < outputs; ++n) {
    for (int64_t k = 0; k < inputs; ++k) {
      if (rows[static_cast<size_t>(n * inputs + k)] != 0) {
        zero[static_cast<size_t>(n / kPanelOutputs * quads + k / 4)] = false;
      }
    }
  }
  return zero;
}

template <typename T>
double ZeroBlockShare(std::span<const T> rows, int64_t inputs, int64_t outputs) {
  const std::vector<bool> zero = ZeroBlocks(rows, inputs, outputs);
  return static_cast<double>(std::count(zero.begin(), zero.end(), true)) /
         static_cast<double>(zero.size());
}

template std::vector<bool> ZeroBlocks(std::span<const float>, int64_t, int64_t);
template std::vector<bool> ZeroBlocks(std::span<const int8_t>, int64_t, int64_t);
template double ZeroBlockShare(std::span<const float>, int64_t, int64_t);
template double ZeroBlockShare(std::span<const int8_t>, int64_t, int64_t);

}  // namespace sparsefuse

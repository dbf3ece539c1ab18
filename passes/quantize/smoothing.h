// SmoothQuant's factors (Xiao et al. 2022) for a linear layer: X ⊙ smooth and W / smooth give the
// same product, with less spread among the inputs of a token and more among the weights.
//
//   1/smooth[k] = max|X[:,k]|^α / max|W[:,k]|^(1−α)
//
// α = 0 stands for no smoothing at all. The factors go into the operator, which multiplies them in
// when it quantises activations; no norm before it changes, since other nodes may read that.

#ifndef SPARSEFUSE_PASSES_QUANTIZE_SMOOTHING_H_
#define SPARSEFUSE_PASSES_QUANTIZE_SMOOTHING_H_

#include <Eigen/Core>
#include <vector>

#include "passes/quantize/clusters.h"

namespace sparsefuse {

// Rows of activations, [R, K].
using ActivationRows = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

inline constexpr double kSmoothingGrid[] = {0.5, 0.65, 0.75, 0.85};

// smooth [K] for α in (0, 1): within [1e-3, 1e3]; 1 where an input or its weights are all zero.
std::vector<float> SmoothFactors(const ActivationRows& x, const WeightRowsView& weight,
                                 double alpha);

// Mean square, over rows and outputs, of what x·Wᵀ loses when activations become int8 by row and
// weights are rounded with scales searched for them; of nested weights e₈^λ·e₄^(1−λ) of the two
// readings, whose sizes differ too much for a sum. smooth: [K], or empty.
double ProductError(const ActivationRows& x, const WeightRowsView& weight, int64_t width,
                    const RoundingRule& rule, std::span<const float> smooth);

struct Smoothing {
  double alpha = 0;
  std::vector<float> smooth;  // [K]; empty: none
};

// The α of the grid with the smallest error over `x` and a sample of outputs; none unless it gains
// 3 %.
Smoothing ChooseSmoothing(const ActivationRows& x, const WeightRowsView& weight, int64_t width,
                          const RoundingRule& rule);

// Share of the codes that are 0 when rows of X ⊙ smooth are quantised as the operators do it: after
// a ReLU at least its zeros, beside large values all that is small. 0 without rows.
double ZeroCodeShare(const ActivationRows& x);

}  // namespace sparsefuse

#endif  // SPARSEFUSE_PASSES_QUANTIZE_SMOOTHING_H_

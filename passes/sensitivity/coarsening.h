// One matrix made coarser, by itself: fewer bits, or a lower rank.

#ifndef SPARSEFUSE_PASSES_SENSITIVITY_COARSENING_H_
#define SPARSEFUSE_PASSES_SENSITIVITY_COARSENING_H_

#include <Eigen/Core>
#include <cstdint>

#include "passes/sensitivity/output_metric.h"

namespace sparsefuse {

// Each column (output) on the grid of 2^(bits − 1) − 1 steps on either side of zero that reaches
// its largest weight, rounded to nearest: what is lost at most, without search or feedback. bits
// ≥ 2.
Eigen::MatrixXd RoundToBits(const Eigen::MatrixXd& weight, int64_t bits);

// The best W' of each rank for a given Gram of inputs and metric of outputs: least
// tr((W − W')ᵀ H (W − W') G), by one symmetric eigen-decomposition of the smaller side
// (design/algorithms.md 4; reference §8.2).
class RankCurve {
 public:
  // weight W [n, m]; gram H [n, n] of centred inputs, damped here. Both arguments must outlive it.
  RankCurve(const Eigen::MatrixXd& weight, const Eigen::MatrixXd& gram, const OutputMetric& metric);

  Eigen::MatrixXd Truncated(int64_t rank) const;  // [n, m], 0 ≤ rank ≤ min(n, m)
  // The error of that W' under the damped H: the sum of the squared singular values left out.
  double Error(int64_t rank) const;

 private:
  const Eigen::MatrixXd& weight_;
  const OutputMetric& metric_;
  Eigen::MatrixXd lower_;    // L of H + λI = LLᵀ; only where n ≤ m
  Eigen::VectorXd squares_;  // of the singular values of LᵀWR, descending
  Eigen::MatrixXd vectors_;  // left ones where n ≤ m, else right ones
};

}  // namespace sparsefuse

#endif  // SPARSEFUSE_PASSES_SENSITIVITY_COARSENING_H_

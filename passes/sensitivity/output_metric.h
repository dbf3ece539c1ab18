// How much errors of a product's outputs count: G = R·Rᵀ, of one weight an output or with what
// outputs have in common.

#ifndef SPARSEFUSE_PASSES_SENSITIVITY_OUTPUT_METRIC_H_
#define SPARSEFUSE_PASSES_SENSITIVITY_OUTPUT_METRIC_H_

#include <Eigen/Core>

namespace sparsefuse {

class OutputMetric {
 public:
  OutputMetric(Eigen::VectorXd diagonal);  // [m], ≥ 0
  // gram: E[g gᵀ] of output gradients, [m, m]. A twentieth of it is replaced by its diagonal and a
  // millionth of the mean added there, which makes it positive definite: few gradients are seen.
  explicit OutputMetric(const Eigen::MatrixXd& gram);

  Eigen::MatrixXd Shape(const Eigen::MatrixXd& weight) const;    // W·R, [n, m]
  Eigen::MatrixXd Unshape(const Eigen::MatrixXd& shaped) const;  // · R⁻¹

 private:
  Eigen::VectorXd root_;   // of a diagonal one
  Eigen::MatrixXd lower_;  // of the other: Cholesky factor
};

}  // namespace sparsefuse

#endif  // SPARSEFUSE_PASSES_SENSITIVITY_OUTPUT_METRIC_H_

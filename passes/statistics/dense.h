// Dense linear algebra in fp64, by Eigen on one thread: the same bytes every time.

#ifndef SPARSEFUSE_PASSES_STATISTICS_DENSE_H_
#define SPARSEFUSE_PASSES_STATISTICS_DENSE_H_

#include <Eigen/Cholesky>
#include <Eigen/Core>

namespace sparsefuse {

// Cholesky decomposition of H + damping · I.
struct DampedCholesky {
  Eigen::LLT<Eigen::MatrixXd> factor;
  double damping;

  Eigen::MatrixXd Solve(const Eigen::MatrixXd& right) const { return factor.solve(right); }
  Eigen::MatrixXd Inverse() const;  // symmetric to the last bit
};

// H: symmetric, positive semi-definite up to rounding, finite (InternalError otherwise), [n, n].
// The damping is `relative` · mean of the diagonal (of 1 if that is 0), and ten times as much each
// time that the decomposition fails.
DampedCholesky Decompose(const Eigen::MatrixXd& h, double relative = 0.01);

// H = vectors · diag(values) · vectorsᵀ, values descending; the largest component of each vector is
// positive.
struct Eigenpairs {
  Eigen::VectorXd values;   // [n]
  Eigen::MatrixXd vectors;  // [n, n], one a column
};
Eigenpairs SymmetricEigen(const Eigen::MatrixXd& h);

}  // namespace sparsefuse

#endif  // SPARSEFUSE_PASSES_STATISTICS_DENSE_H_

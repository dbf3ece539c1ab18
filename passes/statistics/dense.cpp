#include "passes/statistics/dense.h"

#include <Eigen/Eigenvalues>

#include "onnx_io/error.h"

namespace sparsefuse {

Eigen::MatrixXd DampedCholesky::Inverse() const {
  Eigen::MatrixXd inverse = Solve(Eigen::MatrixXd::Identity(factor.rows(), factor.cols()));
  inverse.triangularView<Eigen::StrictlyUpper>() = inverse.transpose();
  return inverse;
}

DampedCholesky Decompose(const Eigen::MatrixXd& h, double relative) {
  SF_CHECK(h.rows() == h.cols() && h.rows() > 0 && relative > 0);
  SF_CHECK(h.allFinite(), "a matrix that is not finite cannot be decomposed");
  const double mean = h.diagonal().mean();
  double damping = relative * (mean > 0 ? mean : 1);
  for (;; damping *= 10) {  // ends: at the latest when damping exceeds every row's sum
    Eigen::LLT<Eigen::MatrixXd> factor(h + damping * Eigen::MatrixXd::Identity(h.rows(), h.cols()));
    if (factor.info() == Eigen::Success) return {std::move(factor), damping};
  }
}

Eigenpairs SymmetricEigen(const Eigen::MatrixXd& h) {
  SF_CHECK(h.rows() == h.cols() && h.rows() > 0);
  SF_CHECK(h.allFinite(), "a matrix that is not finite has no eigenvalues");
  const Eigen::SelfAdjointEigenSolver<Eigen::MatrixXd> solver(h);
  SF_CHECK(solver.info() == Eigen::Success, "the eigenvalues do not converge");
  Eigenpairs pairs{solver.eigenvalues().reverse(), solver.eigenvectors().rowwise().reverse()};
  for (Eigen::Index i = 0; i < pairs.vectors.cols(); ++i) {
    Eigen::Index largest;
    pairs.vectors.col(i).cwiseAbs().maxCoeff(&largest);
    if (pairs.vectors(largest, i) < 0) pairs.vectors.col(i) *= -1;
  }
  return pairs;
}

}  // namespace sparsefuse

#include "passes/statistics/dense.h"

#include <cmath>
#include <limits>

#include "onnx_io/error.h"
#include "tests/support/catch.h"
#include "tests/unit/statistics/naive.h"

namespace sparsefuse {
namespace {

using test::Difference;
using test::RandomMatrix;

// Of rank `rank`, mean of the diagonal 1.
Eigen::MatrixXd Gram(int64_t n, int64_t rank, uint64_t seed) {
  const Eigen::MatrixXd rows = RandomMatrix(rank, n, seed);
  const Eigen::MatrixXd gram = rows.transpose() * rows;
  return gram / gram.diagonal().mean();
}

Eigen::MatrixXd Damped(const Eigen::MatrixXd& h, double damping) {
  return h + damping * Eigen::MatrixXd::Identity(h.rows(), h.cols());
}

TEST_CASE("solve and inverse undo the damped matrix") {
  for (const int64_t rank : {3, 17, 40}) {
    INFO(rank);
    const Eigen::MatrixXd h = 5 * Gram(17, rank, 1);
    const DampedCholesky cholesky = Decompose(h);
    CHECK(std::abs(cholesky.damping - 0.05) < 1e-12);
    const Eigen::MatrixXd damped = Damped(h, cholesky.damping);
    const Eigen::MatrixXd inverse = cholesky.Inverse();
    CHECK(Difference(damped * inverse, Eigen::MatrixXd::Identity(17, 17)) < 1e-12);
    CHECK(inverse == inverse.transpose());
    const Eigen::MatrixXd right = RandomMatrix(17, 4, 2);
    CHECK(Difference(damped * cholesky.Solve(right), right) < 1e-12);
  }
}

TEST_CASE("a matrix that is slightly indefinite gets ten times the damping until it works") {
  // Eigenvalues 1 and, rarely in Gram matrices but as rounding may have it, −0.05: 0.01 of the
  // mean is too little, 0.1 of it is enough.
  Eigen::MatrixXd h = Eigen::MatrixXd::Identity(10, 10);
  h(9, 9) = -0.05;
  const double mean = h.diagonal().mean();
  CHECK(std::abs(Decompose(h).damping - 0.1 * mean) < 1e-12);
  CHECK(std::abs(Decompose(h, 0.1).damping - 0.1 * mean) < 1e-12);
}

TEST_CASE("no statistics at all are damped as well") {
  CHECK(Decompose(Eigen::MatrixXd::Zero(3, 3)).damping == 0.01);
  CHECK(Decompose(Eigen::MatrixXd::Zero(3, 3))
            .Inverse()
            .isApprox(100 * Eigen::MatrixXd::Identity(3, 3)));
  Eigen::MatrixXd h = Eigen::MatrixXd::Identity(3, 3);
  h(1, 2) = std::numeric_limits<double>::quiet_NaN();
  CHECK_THROWS_AS(Decompose(h), InternalError);
  CHECK_THROWS_AS(SymmetricEigen(h), InternalError);
}

TEST_CASE("eigenvalues descend and rebuild the matrix") {
  const Eigen::MatrixXd h = Gram(12, 7, 3);
  const Eigenpairs pairs = SymmetricEigen(h);
  CHECK(Difference(pairs.vectors * pairs.values.asDiagonal() * pairs.vectors.transpose(), h) <
        1e-12);
  CHECK(Difference(pairs.vectors.transpose() * pairs.vectors, Eigen::MatrixXd::Identity(12, 12)) <
        1e-12);
  for (int i = 1; i < 12; ++i) CHECK(pairs.values[i - 1] >= pairs.values[i]);
  CHECK(std::abs(pairs.values[7]) < 1e-12);  // rank 7
}

TEST_CASE("a matrix whose eigenvalues are known") {
  Eigen::MatrixXd h(2, 2);
  h << 2, 1, 1, 2;
  const Eigenpairs pairs = SymmetricEigen(h);
  CHECK(std::abs(pairs.values[0] - 3) < 1e-14);
  CHECK(std::abs(pairs.values[1] - 1) < 1e-14);
  CHECK(std::abs(pairs.vectors(0, 0) - std::sqrt(0.5)) < 1e-14);
  CHECK(std::abs(pairs.vectors(1, 0) - std::sqrt(0.5)) < 1e-14);
  CHECK(std::abs(pairs.vectors.col(1).cwiseAbs().maxCoeff() - std::sqrt(0.5)) < 1e-14);
}

}  // namespace
}  // namespace sparsefuse

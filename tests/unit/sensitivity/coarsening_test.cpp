// Rounding and low rank against definitions, metrics against products written out.

#include "passes/sensitivity/coarsening.h"

#include <Eigen/Dense>
#include <cmath>

#include "passes/sensitivity/group_obs.h"
#include "passes/sensitivity/rank_agreement.h"
#include "passes/statistics/dense.h"
#include "tests/support/catch.h"
#include "tests/support/random.h"

namespace sparsefuse {
namespace {

using Eigen::MatrixXd;
using Eigen::VectorXd;
using test::NormalMatrix;

MatrixXd Products(const MatrixXd& rows) {
  return rows.transpose() * rows / static_cast<double>(rows.rows());
}

TEST_CASE("rounded columns lie on their grid, each weight at its nearest point") {
  MatrixXd weight = NormalMatrix(7, 3, 1);
  weight.col(2).setZero();
  for (const int64_t bits : {2, 4, 8}) {
    const double steps = std::exp2(bits - 1) - 1;
    const MatrixXd rounded = RoundToBits(weight, bits);
    CHECK(rounded.col(2) == weight.col(2));
    for (Eigen::Index c = 0; c < 2; ++c) {
      const double scale = weight.col(c).cwiseAbs().maxCoeff() / steps;
      for (Eigen::Index r = 0; r < 7; ++r) {
        double nearest = 0;
        for (double code = -steps; code <= steps; ++code) {
          if (std::abs(code * scale - weight(r, c)) < std::abs(nearest - weight(r, c))) {
            nearest = code * scale;
          }
        }
        CHECK(rounded(r, c) == Approx(nearest).margin(1e-12));
      }
    }
  }
}

TEST_CASE("a metric shapes as its Gram says, and back") {
  const MatrixXd gram = Products(NormalMatrix(9, 5, 2)), weight = NormalMatrix(4, 5, 3);
  MatrixXd used = 0.95 * gram;
  used.diagonal() = gram.diagonal().array() + 1e-6 * gram.diagonal().mean();
  const VectorXd diagonal = gram.diagonal();
  const std::pair<OutputMetric, MatrixXd> cases[] = {
      {OutputMetric(gram), used}, {OutputMetric(diagonal), diagonal.asDiagonal()}};
  for (const auto& [metric, g] : cases) {
    const MatrixXd shaped = metric.Shape(weight);
    CHECK((shaped * shaped.transpose() - weight * g * weight.transpose()).norm() < 1e-12);
    CHECK((metric.Unshape(shaped) - weight).norm() < 1e-9);
  }
}

TEST_CASE("no matrix of the same rank does better than the rank curve's") {
  for (const auto& [n, m] : {std::pair(6, 9), std::pair(9, 6)}) {
    CAPTURE(n, m);
    const MatrixXd weight = NormalMatrix(n, m, 4), gram = Products(NormalMatrix(40, n, 5));
    const OutputMetric metric(Products(NormalMatrix(40, m, 6)));
    const RankCurve curve(weight, gram, metric);
    MatrixXd damped = gram;
    damped.diagonal().array() += Decompose(gram).damping;
    const ObsConsumer consumer{weight, damped, metric, {}};
    CHECK((curve.Truncated(6) - weight).norm() < 1e-9 * weight.norm());
    for (const int64_t rank : {1, 3, 5}) {
      const MatrixXd best = curve.Truncated(rank);
      const double error = ObsError(consumer, best);
      CHECK(Eigen::ColPivHouseholderQR<MatrixXd>(best).setThreshold(1e-9).rank() == rank);
      CHECK(curve.Error(rank) == Approx(error));
      // Alternating least squares from a random start reaches it, and nothing below it.
      MatrixXd left = NormalMatrix(n, rank, 7), right;
      const MatrixXd g = metric.Shape(MatrixXd::Identity(m, m));
      for (int round = 0; round < 300; ++round) {
        right = (left.transpose() * damped * left).ldlt().solve(left.transpose() * damped * weight);
        const MatrixXd shaped = right * g;
        left = (shaped * shaped.transpose())
                   .ldlt()
                   .solve(shaped * (weight * g).transpose())
                   .transpose();
      }
      right = (left.transpose() * damped * left).ldlt().solve(left.transpose() * damped * weight);
      const double found = ObsError(consumer, left * right);
      CHECK(found >= error * (1 - 1e-9));
      CHECK(found == Approx(error).epsilon(1e-3));
    }
  }
}

TEST_CASE("rank correlation") {
  const std::vector<double> up = {1, 2, 3, 4}, down = {9, 7, 3, 1}, mixed = {1, 3, 2, 4};
  CHECK(SpearmanCorrelation(up, up) == Approx(1));
  CHECK(SpearmanCorrelation(up, down) == Approx(-1));
  CHECK(SpearmanCorrelation(up, mixed) == Approx(0.8));  // 1 − 6·Σd²/(n(n² − 1))
  // Ties share their mean rank: ranks 0.5 0.5 2 3 against 0 1 2 3.
  const std::vector<double> tied = {5, 5, 6, 7};
  CHECK(SpearmanCorrelation(up, tied) == Approx(4.5 / std::sqrt(5 * 4.5)));
  const std::vector<double> flat = {2, 2, 2, 2}, two = {1, 2};
  CHECK(std::isnan(SpearmanCorrelation(up, flat)));
  CHECK(std::isnan(SpearmanCorrelation(two, two)));
}

}  // namespace
}  // namespace sparsefuse

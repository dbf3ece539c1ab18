#include "passes/sensitivity/output_metric.h"

#include <Eigen/Cholesky>
#include <algorithm>

namespace sparsefuse {

using Eigen::MatrixXd;

namespace {

constexpr double kOwnShare = 0.05;
constexpr double kLeast = 1e-6;

}  // namespace

OutputMetric::OutputMetric(Eigen::VectorXd diagonal) : root_(diagonal.cwiseSqrt()) {}

OutputMetric::OutputMetric(const MatrixXd& gram) {
  MatrixXd g = (1 - kOwnShare) * gram;
  g.diagonal() = gram.diagonal().array() + kLeast * std::max(gram.diagonal().mean(), 1e-30);
  lower_ = Eigen::LLT<MatrixXd>(g).matrixL();
}

MatrixXd OutputMetric::Shape(const MatrixXd& weight) const {
  if (lower_.size() == 0) return weight * root_.asDiagonal();
  return weight * lower_.triangularView<Eigen::Lower>();
}

MatrixXd OutputMetric::Unshape(const MatrixXd& shaped) const {
  if (lower_.size() == 0) return shaped * root_.cwiseInverse().asDiagonal();
  return lower_.triangularView<Eigen::Lower>().solve<Eigen::OnTheRight>(shaped);
}

}  // namespace sparsefuse

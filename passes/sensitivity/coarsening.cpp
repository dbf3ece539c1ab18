#include "passes/sensitivity/coarsening.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "passes/statistics/dense.h"

namespace sparsefuse {

using Eigen::Index;
using Eigen::MatrixXd;
using Eigen::VectorXd;

MatrixXd RoundToBits(const MatrixXd& weight, int64_t bits) {
  const double steps = std::exp2(static_cast<double>(bits - 1)) - 1;
  MatrixXd rounded = MatrixXd::Zero(weight.rows(), weight.cols());
  for (Index c = 0; c < weight.cols(); ++c) {
    const double scale = weight.col(c).cwiseAbs().maxCoeff() / steps;
    if (!(scale > 0)) continue;
    rounded.col(c) = (weight.col(c) / scale).array().unaryExpr([](double x) {
      return std::nearbyint(x);
    }) * scale;
  }
  return rounded;
}

RankCurve::RankCurve(const MatrixXd& weight, const MatrixXd& gram, const OutputMetric& metric)
    : weight_(weight), metric_(metric) {
  MatrixXd lower = Decompose(gram).factor.matrixL();
  const MatrixXd shaped = metric.Shape(lower.transpose() * weight);
  const bool wide = weight.rows() <= weight.cols();
  Eigenpairs pairs = SymmetricEigen(wide ? MatrixXd(shaped * shaped.transpose())
                                         : MatrixXd(shaped.transpose() * shaped));
  squares_ = pairs.values.cwiseMax(0);
  vectors_ = std::move(pairs.vectors);
  if (wide) lower_ = std::move(lower);
}

MatrixXd RankCurve::Truncated(int64_t rank) const {
  const auto basis = vectors_.leftCols(static_cast<Index>(rank));
  if (lower_.size() == 0) {
    return metric_.Unshape(metric_.Shape(weight_) * basis * basis.transpose());
  }
  // W' = L⁻ᵀ U Uᵀ LᵀW: the metric on the right cancels.
  const MatrixXd inner = basis.transpose() * (lower_.transpose() * weight_);
  return lower_.transpose().triangularView<Eigen::Upper>().solve(basis * inner);
}

double RankCurve::Error(int64_t rank) const {
  return squares_.tail(squares_.size() - static_cast<Index>(rank)).sum();
}

}  // namespace sparsefuse

#include "passes/quantize/gate.h"

#include <algorithm>
#include <cmath>

#include "kernels/linear/gate.h"
#include "passes/statistics/dense.h"

namespace sparsefuse {
namespace {

using Eigen::Index;
using Eigen::MatrixXd;
using Eigen::VectorXd;

constexpr double kEnoughExplained = 0.9;
// Of the weights', a byte each: reading the sketch then takes 3 % of the operator's time.
constexpr double kMostBytes = 0.007;

// r ≈ a·size + b.
struct Line {
  double a = 0, b = 0;

  VectorXd At(const VectorXd& size) const { return (a * size).array() + b; }
};

Line FitLine(const VectorXd& size, const VectorXd& r) {
  const VectorXd x = size.array() - size.mean(), y = r.array() - r.mean();
  const double variance = x.squaredNorm();
  const double a = variance > 0 ? x.dot(y) / variance : 0;
  return {a, r.mean() - a * size.mean()};
}

// Share of the variance of r that r̂ explains.
double Explained(const VectorXd& r, const VectorXd& estimate) {
  const double all = (r.array() - r.mean()).matrix().squaredNorm();
  return all > 0 ? 1 - (r - estimate).squaredNorm() / all : 0;
}

// A candidate for the estimate: sketch [rows, K], no rows: ‖x‖.
struct Sketched {
  MatrixXd sketch;
  Line line;
  double r_squared;
  VectorXd estimates;
};

VectorXd Sizes(const MatrixXd& x, const MatrixXd& sketch) {
  if (sketch.rows() == 0) return x.rowwise().norm();
  return (x * sketch.transpose()).rowwise().norm();
}

}  // namespace

FittedGate FitGate(const ActivationRows& fit, const ActivationRows& select,
                   std::span<const float> difference, int64_t outputs) {
  if (fit.rows() == 0 || select.rows() == 0) return {};
  const Index inputs = fit.cols();
  const MatrixXd d =
      Eigen::Map<const ActivationRows>(difference.data(), outputs, inputs).cast<double>();
  const MatrixXd x = fit.cast<double>(), other = select.cast<double>();
  const MatrixXd moved = x * d.transpose();  // [rows, N]
  const VectorXd r = moved.rowwise().norm(), wanted = (other * d.transpose()).rowwise().norm();
  if (!(r.maxCoeff() > 0)) return {};
  const auto try_sketch = [&](MatrixXd sketch) {
    Sketched candidate{std::move(sketch), {}, 0, {}};
    candidate.line = FitLine(Sizes(x, candidate.sketch), r);
    candidate.estimates = candidate.line.At(Sizes(other, candidate.sketch));
    candidate.r_squared = Explained(wanted, candidate.estimates);
    return candidate;
  };
  Sketched best = try_sketch(MatrixXd(0, inputs));
  if (best.r_squared < kEnoughExplained) {
    // moved = V·Λ^½·Uᵀ: the first rows of Uᵀ·d.
    const Eigenpairs pairs = SymmetricEigen(moved * moved.transpose());
    const auto bytes =
        static_cast<int64_t>(kMostBytes / sizeof(float) * static_cast<double>(outputs));
    const int64_t rank = (pairs.values.array() > 1e-12 * pairs.values(0)).count();
    const int64_t most = std::min({bytes, rank, kMaxSketchRows});
    for (int64_t size = 2; size <= most && best.r_squared < kEnoughExplained;
         size = size < most ? std::min(2 * size, most) : most + 1) {
      const MatrixXd u = moved.transpose() * pairs.vectors.leftCols(size) *
                         pairs.values.head(size).cwiseSqrt().cwiseInverse().asDiagonal();
      Sketched candidate = try_sketch(u.transpose() * d);
      if (candidate.r_squared > best.r_squared) best = std::move(candidate);
    }
  }
  FittedGate result{.gate = {static_cast<float>(best.line.a), static_cast<float>(best.line.b), 0,
                             static_cast<float>(best.sketch.rows())},
                    .r_squared = best.r_squared,
                    .sketch_rows = best.sketch.rows(),
                    .estimates = {best.estimates.begin(), best.estimates.end()}};
  for (Index row = 0; row < best.sketch.rows(); ++row) {
    for (Index k = 0; k < inputs; ++k) {
      result.gate.push_back(static_cast<float>(best.sketch(row, k)));
    }
  }
  std::sort(result.estimates.begin(), result.estimates.end());
  return result;
}

float GateThreshold(std::span<const double> estimates, double share) {
  const auto count =
      static_cast<size_t>(std::lround(share * static_cast<double>(estimates.size())));
  if (count == 0) return static_cast<float>(estimates.front() - std::fabs(estimates.front()) - 1);
  if (count == estimates.size()) return static_cast<float>(2 * std::fabs(estimates.back()) + 1);
  return static_cast<float>((estimates[count - 1] + estimates[count]) / 2);
}

}  // namespace sparsefuse

// Against the least squares that the formulas stand for, solved directly.

#include "passes/sensitivity/group_obs.h"

#include <Eigen/QR>
#include <algorithm>
#include <numeric>
#include <random>

#include "tests/support/catch.h"

namespace sparsefuse {
namespace {

using Eigen::MatrixXd;

// X with correlated columns, so that survivors have something to repair.
MatrixXd Inputs(int64_t rows, int64_t columns, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<double> normal;
  const auto draw = [&] { return normal(random); };
  const MatrixXd mixed = MatrixXd::NullaryExpr(rows, columns / 2, draw) *
                         MatrixXd::NullaryExpr(columns / 2, columns, draw);
  return mixed + 0.5 * MatrixXd::NullaryExpr(rows, columns, draw);
}

struct Problem {
  MatrixXd inputs;  // X, centred
  MatrixXd metric;  // G
  ObsConsumer consumer;
};

Problem MakeProblem(int64_t units, int64_t width, int64_t fixed, int64_t outputs, uint32_t seed) {
  const int64_t n = units * width + fixed;
  MatrixXd inputs = Inputs(400, n, seed);
  inputs.rowwise() -= inputs.colwise().mean().eval();
  std::mt19937 random(seed + 1);
  std::normal_distribution<double> normal;
  const auto draw = [&] { return normal(random); };
  const MatrixXd weight = MatrixXd::NullaryExpr(n, outputs, draw);
  // Outputs that hang together, and the little that OutputMetric adds.
  const MatrixXd gradients = MatrixXd::NullaryExpr(outputs, 4 * outputs, draw);
  const MatrixXd products = gradients * gradients.transpose();
  MatrixXd metric = 0.95 * products;
  metric.diagonal() = products.diagonal().array() + 1e-6 * products.diagonal().mean();
  Problem problem{
      inputs, metric, {weight, inputs.transpose() * inputs / 400, OutputMetric(products), {}}};
  ObsConsumer& consumer = problem.consumer;
  for (int64_t i = 0; i < n; ++i) {
    consumer.unit_of.push_back(i < units * width ? i % units : -1);  // interleaved
  }
  return problem;
}

// The best that the kept rows can do, by ridge regression on X itself with the same damping.
MatrixXd DirectRefit(const Problem& problem, const std::vector<int64_t>& kept) {
  const ObsConsumer& consumer = problem.consumer;
  const double ridge = 0.01 * consumer.gram.diagonal().mean();
  std::vector<Eigen::Index> rows;
  for (size_t i = 0; i < consumer.unit_of.size(); ++i) {
    const int64_t unit = consumer.unit_of[i];
    if (unit < 0 || std::count(kept.begin(), kept.end(), unit)) {
      rows.push_back(static_cast<Eigen::Index>(i));
    }
  }
  MatrixXd refit = MatrixXd::Zero(consumer.weight.rows(), consumer.weight.cols());
  if (rows.empty()) return refit;
  const auto k = static_cast<Eigen::Index>(rows.size());
  const Eigen::Index samples = problem.inputs.rows();
  // min ‖X W − X_K W'‖²/T + λ‖W' − W_K‖²
  MatrixXd left(samples + k, k), right(samples + k, consumer.weight.cols());
  left << problem.inputs(Eigen::all, rows) / std::sqrt(static_cast<double>(samples)),
      std::sqrt(ridge) * MatrixXd::Identity(k, k);
  right << problem.inputs * consumer.weight / std::sqrt(static_cast<double>(samples)),
      std::sqrt(ridge) * consumer.weight(rows, Eigen::all);
  refit(rows, Eigen::all) = left.colPivHouseholderQr().solve(right);
  return refit;
}

double DirectError(const Problem& problem, const MatrixXd& changed) {
  const MatrixXd difference = problem.inputs * (problem.consumer.weight - changed);
  return (difference.transpose() * difference * problem.metric).trace() /
         static_cast<double>(problem.inputs.rows());
}

TEST_CASE("refit and error are least squares") {
  for (const int64_t width : {1, 3}) {
    const Problem problem = MakeProblem(8, width, 2, 5, 7);
    for (const std::vector<int64_t>& kept : {std::vector<int64_t>{0, 2, 3, 5, 6, 7}, {4}, {}}) {
      CAPTURE(width, kept);
      const MatrixXd refit = ObsRefit(problem.consumer, kept);
      CHECK((refit - DirectRefit(problem, kept)).norm() < 1e-9 * problem.consumer.weight.norm());
      CHECK(ObsError(problem.consumer, refit) == Approx(DirectError(problem, refit)));
    }
  }
}

TEST_CASE("nothing removed, nothing changed") {
  const Problem problem = MakeProblem(6, 2, 1, 4, 3);
  const std::vector<int64_t> all = {0, 1, 2, 3, 4, 5};
  CHECK(ObsRefit(problem.consumer, all) == problem.consumer.weight);
  const std::vector<int64_t> counts = {6};
  const auto levels = BuildObsLevels(std::span(&problem.consumer, 1), 6, counts, {});
  CHECK(levels.at(0).kept == all);
  CHECK(levels.at(0).error == 0);
}

// Every subset tried.
double BestError(const Problem& problem, int64_t units, int64_t count) {
  double best = std::numeric_limits<double>::infinity();
  for (uint32_t mask = 0; mask < (1U << units); ++mask) {
    std::vector<int64_t> kept;
    for (int64_t u = 0; u < units; ++u) {
      if (mask >> u & 1) kept.push_back(u);
    }
    if (static_cast<int64_t>(kept.size()) != count) continue;
    best = std::min(best, DirectError(problem, DirectRefit(problem, kept)));
  }
  return best;
}

TEST_CASE("levels are near the best of all subsets, and nested batches lose little") {
  for (const uint32_t seed : {11U, 12U, 13U, 14U}) {
    for (const int64_t width : {1, 2}) {
      const Problem problem = MakeProblem(10, width, 0, 6, seed);
      const std::vector<int64_t> counts = {9, 7, 5, 3, 1, 0};
      for (const int64_t batch : {1, 2}) {
        CAPTURE(seed, width, batch);
        const auto levels = BuildObsLevels(std::span(&problem.consumer, 1), 10, counts,
                                           {.batch = batch, .swap_rounds = 20});
        REQUIRE(levels.size() == counts.size());
        double before = 0;
        for (size_t i = 0; i < counts.size(); ++i) {
          CHECK(static_cast<int64_t>(levels[i].kept.size()) == counts[i]);
          CHECK(std::is_sorted(levels[i].kept.begin(), levels[i].kept.end()));
          CHECK(levels[i].error <= 1.6 * BestError(problem, 10, counts[i]));
          CHECK(levels[i].error >= before);
          before = levels[i].error;
        }
      }
    }
  }
}

TEST_CASE("without swaps: the cheapest unit by brute force goes first") {
  const Problem problem = MakeProblem(7, 2, 1, 4, 5);
  double best = std::numeric_limits<double>::infinity();
  std::vector<int64_t> expected;
  for (int64_t out = 0; out < 7; ++out) {
    std::vector<int64_t> kept(7);
    std::iota(kept.begin(), kept.end(), 0);
    kept.erase(kept.begin() + out);
    const MatrixXd delta = problem.consumer.weight - DirectRefit(problem, kept);
    // What the damped objective loses.
    const double ridge = 0.01 * problem.consumer.gram.diagonal().mean();
    const double error = DirectError(problem, problem.consumer.weight - delta) +
                         ridge * (delta.transpose() * delta * problem.metric).trace();
    if (error < best) {
      best = error;
      expected = kept;
    }
  }
  const std::vector<int64_t> counts = {6};
  const auto levels =
      BuildObsLevels(std::span(&problem.consumer, 1), 7, counts, {.batch = 1, .swap_rounds = 0});
  CHECK(levels.at(0).kept == expected);
}

TEST_CASE("without swaps: updated one unit after the other, as solved anew after each") {
  const Problem problem = MakeProblem(12, 2, 1, 4, 5);
  const std::vector<int64_t> each = {11, 10, 9, 8, 7, 6, 5, 4}, last = {4};
  const auto build = [&](const std::vector<int64_t>& counts) {
    return BuildObsLevels(std::span(&problem.consumer, 1), 12, counts,
                          {.batch = 1, .swap_rounds = 0});
  };
  CHECK(build(last).back().kept == build(each).back().kept);  // a level ends with a fresh solution
}

TEST_CASE("two consumers: their errors add up") {
  const Problem a = MakeProblem(8, 1, 0, 5, 21), b = MakeProblem(8, 3, 2, 4, 22);
  const std::vector<ObsConsumer> both = {a.consumer, b.consumer};
  const std::vector<int64_t> counts = {4};
  const auto levels = BuildObsLevels(both, 8, counts, {});
  CHECK(levels[0].error == Approx(DirectError(a, DirectRefit(a, levels[0].kept)) +
                                  DirectError(b, DirectRefit(b, levels[0].kept))));
}

}  // namespace
}  // namespace sparsefuse

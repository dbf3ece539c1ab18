#include "passes/sparsify/sweep.h"

#include <Eigen/LU>
#include <cmath>

#include "passes/statistics/dense.h"
#include "tests/support/catch.h"
#include "tests/support/random.h"

namespace sparsefuse {
namespace {

using Eigen::Index;
using Eigen::MatrixXd;
using Eigen::VectorXd;
using test::NormalMatrix;

// Of inputs that depend on each other: half as many sources as inputs, and some noise.
MatrixXd Gram(Index n, unsigned seed) {
  const Index rows = 6 * n;
  const MatrixXd x = NormalMatrix(rows, std::max<Index>(n / 2, 1), seed) *
                         NormalMatrix(std::max<Index>(n / 2, 1), n, seed + 1) +
                     0.3 * NormalMatrix(rows, n, seed + 2);
  return x.transpose() * x / static_cast<double>(rows);
}

SweepTask Task(Pattern pattern, double share, Index n, Index m) {
  return {{pattern, Scope::kLayer, 1}, share, ZeroMask::Zero(n, m), VectorXd::Ones(m)};
}

// tr(Δᵀ (H + λI) Δ diag g) with an explicit loop.
double DampedError(const MatrixXd& gram, double damping, const VectorXd& g, const MatrixXd& delta) {
  double error = 0;
  for (Index c = 0; c < delta.cols(); ++c) {
    for (Index i = 0; i < delta.rows(); ++i) {
      for (Index j = 0; j < delta.rows(); ++j) {
        error += g[c] * delta(i, c) * (gram(i, j) + (i == j ? damping : 0)) * delta(j, c);
      }
    }
  }
  return error;
}

// The best weights with these zeros, output by output, from the normal equations of the rest.
MatrixXd LeastSquares(const MatrixXd& weight, const MatrixXd& gram, double damping,
                      const ZeroMask& zeros) {
  MatrixXd best = MatrixXd::Zero(weight.rows(), weight.cols());
  const MatrixXd damped = gram + damping * MatrixXd::Identity(gram.rows(), gram.cols());
  for (Index c = 0; c < weight.cols(); ++c) {
    std::vector<Index> kept;
    for (Index i = 0; i < weight.rows(); ++i) {
      if (!zeros(i, c)) kept.push_back(i);
    }
    if (kept.empty()) continue;
    const VectorXd right = damped(kept, Eigen::all) * weight.col(c);
    best(kept, c) = damped(kept, kept).fullPivLu().solve(right);
  }
  return best;
}

bool HasZeros(const Swept& swept) {
  return ((swept.zeros.array() == 0) || (swept.weight.array() == 0)).all();
}

TEST_CASE("the factor is that of the damped inverse") {
  const MatrixXd gram = Gram(37, 1);
  const SweepFactor factor = FactorOf(gram);
  const MatrixXd damped = gram + factor.damping * MatrixXd::Identity(37, 37);
  CHECK((factor.upper.transpose() * factor.upper * damped - MatrixXd::Identity(37, 37))
            .cwiseAbs()
            .maxCoeff() < 1e-9);
  CHECK(factor.upper.isUpperTriangular());
  CHECK((damped * factor.Solve(gram) - gram).cwiseAbs().maxCoeff() < 1e-9);
  CHECK((factor.Inverse(5, 7) - damped.inverse().block(5, 5, 7, 7)).cwiseAbs().maxCoeff() < 1e-9);
  CHECK(factor.damping == Approx(0.01 * gram.diagonal().mean()));
}

TEST_CASE("a sweep is between the best weights and none") {
  const Index n = 150, m = 7;  // two panels of inputs
  const MatrixXd weight = NormalMatrix(n, m, 2), gram = Gram(n, 3);
  const SweepFactor factor = FactorOf(gram);
  const VectorXd g = VectorXd::Ones(m);
  const auto [swept, zeros] = Sweep(weight, factor, Task(Pattern::kUnstructured, 0.5, n, m));
  CHECK(HasZeros({swept, zeros}));
  CHECK((SweepGiven(weight, factor, zeros) - swept).isZero(1e-9));
  const auto error = [&](const MatrixXd& w) {
    return DampedError(gram, factor.damping, g, weight - w);
  };
  const double least = error(LeastSquares(weight, gram, factor.damping, zeros));
  const double none = error((zeros.array() != 0).select(0, weight));
  CHECK(error(swept) >= least * (1 - 1e-9));
  CHECK(error(swept) < 5 * least);
  CHECK(error(swept) < 0.5 * none);
}

TEST_CASE("zeros before all that stays: the sweep is exact") {
  const Index n = 20, m = 3;
  const MatrixXd weight = NormalMatrix(n, m, 5), gram = Gram(n, 6);
  const SweepFactor factor = FactorOf(gram);
  ZeroMask zeros = ZeroMask::Zero(n, m);
  zeros.topRows(9).setOnes();
  const MatrixXd best = LeastSquares(weight, gram, factor.damping, zeros);
  CHECK((SweepGiven(weight, factor, zeros) - best).cwiseAbs().maxCoeff() < 1e-8);
}

TEST_CASE("a block's cost alone is what its removal really costs") {
  // One block is chosen of three, so the sweep must find the one whose removal, with all others
  // refitted, costs least.
  const Index n = 12, m = 32;
  for (unsigned seed = 0; seed < 8; ++seed) {
    CAPTURE(seed);
    const MatrixXd weight = NormalMatrix(n, m, 10 + seed), gram = Gram(n, 30 + seed);
    SweepTask task = Task(Pattern::kBlock, 1.0 / 3, n, m);
    task.importance = NormalMatrix(m, 1, 50 + seed).cwiseAbs();
    // Panels of 128 inputs hold all three; what counts is the cost when only later inputs can make
    // up for it.
    const SweepFactor factor = FactorOf(gram);
    double least = INFINITY;
    Index best = -1;
    for (Index q = 0; q < 3; ++q) {
      ZeroMask zeros = ZeroMask::Zero(n, m);
      zeros.middleRows(4 * q, 4).setOnes();
      const double error = DampedError(gram, factor.damping, task.importance,
                                       weight - SweepGiven(weight, factor, zeros));
      if (error < least) best = q;
      least = std::min(least, error);
    }
    const Swept swept = Sweep(weight, factor, task);
    CHECK(swept.zeros.middleRows(4 * best, 4).all());
    CHECK(ZeroShare(swept.zeros) == Approx(1.0 / 3));
  }
}

TEST_CASE("a panel of inputs gets the blocks that cost least with everything refitted") {
  // Two panels of one block each, with 124 inputs between that nobody uses.
  const Index n = 132, m = 4;
  for (unsigned seed = 0; seed < 6; ++seed) {
    CAPTURE(seed);
    MatrixXd weight = MatrixXd::Zero(n, m);
    weight.topRows(4) = NormalMatrix(4, m, seed);
    weight.bottomRows(4) = NormalMatrix(4, m, seed + 20);
    const MatrixXd gram = Gram(n, seed + 40);
    const SweepFactor factor = FactorOf(gram);
    SweepTask task = Task(Pattern::kBlock, 32.0 / 33, n, m);
    task.forced = ExistingZeros(weight, Pattern::kBlock);
    CHECK(ZeroShare(task.forced) == Approx(31.0 / 33));
    const Swept swept = Sweep(weight, factor, task);
    const auto cost = [&](Index top) {
      const MatrixXd inverse = factor.Inverse(top, 4);
      const MatrixXd w = weight.middleRows(top, 4);
      return (w.transpose() * inverse.inverse() * w).trace();
    };
    CHECK(swept.zeros(cost(0) < cost(128) ? 0 : 128, 0) == 1);
    CHECK(ZeroShare(swept.zeros) == Approx(32.0 / 33));
  }
}

TEST_CASE("exactly the share that was asked for, whatever the shape") {
  for (const auto& [n, m] :
       {std::pair<Index, Index>{128, 64}, {301, 45}, {7, 3}, {1, 1}, {130, 33}}) {
    const MatrixXd weight = NormalMatrix(n, m, 7), gram = Gram(n, 8);
    const SweepFactor factor = FactorOf(gram);
    for (const Pattern pattern :
         {Pattern::kBlock, Pattern::kBlock64, Pattern::kBlock128, Pattern::kUnstructured}) {
      for (const double share : {0.1, 0.5, 0.9, 1.0}) {
        CAPTURE(n, m, static_cast<int>(pattern), share);
        const SweepTask task = Task(pattern, share, n, m);
        const CellGrid grid = Cells(pattern, n, m);
        const Swept swept = Sweep(weight, factor, task);
        CHECK(HasZeros(swept));
        Index cells = 0;
        for (Index r = 0; r < grid.rows; ++r) {
          for (Index c = 0; c < grid.columns; ++c) {
            const Index top = r * grid.depth, left = c * grid.width;
            const auto cell = swept.zeros.block(top, left, std::min(grid.depth, n - top),
                                                std::min(grid.width, m - left));
            CHECK(((cell.array() == cell(0, 0)).all()));
            cells += cell(0, 0);
          }
        }
        CHECK(cells == static_cast<Index>(std::ceil(
                           share * static_cast<double>(grid.rows * grid.columns) - 1e-9)));
        CHECK((DropLeast(weight, VectorXd::Ones(n), task).zeros.array() != 0).count() > 0);
      }
    }
  }
}

TEST_CASE("each output has its share where outputs do not compete") {
  const Index n = 60, m = 9;
  SweepTask task = Task(Pattern::kUnstructured, 0.4, n, m);
  task.pattern.scope = Scope::kOutput;
  const Swept swept = Sweep(NormalMatrix(n, m, 1), FactorOf(Gram(n, 2)), task);
  const Swept dropped = DropLeast(NormalMatrix(n, m, 1), VectorXd::Ones(n), task);
  for (Index c = 0; c < m; ++c) {
    CHECK((swept.zeros.col(c).array() != 0).count() == 24);
    CHECK((dropped.zeros.col(c).array() != 0).count() == 24);
  }
}

TEST_CASE("panels of outputs keep their quads in multiples") {
  for (const Index n : {256, 200}) {  // 64 quads; 50, the last two of which are beyond the multiple
    const Index m = 96;
    MatrixXd weight = NormalMatrix(n, m, 3);
    weight.leftCols(32) *= 0.2;  // is missed least
    SweepTask task = Task(Pattern::kBlock, 0.5, n, m);
    task.pattern.quad_multiple = 16;
    const Swept swept = Sweep(weight, FactorOf(Gram(n, 4)), task);
    Index zeros = 0, most = 0, first = 0;
    for (Index p = 0; p < 3; ++p) {
      Index kept = 0;
      for (Index q = 0; q < n / 4; ++q) kept += swept.zeros(4 * q, 32 * p) == 0;
      CAPTURE(n, p, kept);
      CHECK((kept == n / 4 || kept % 16 == 0));
      zeros += n / 4 - kept;
      most = std::max(most, n / 4 - kept);
      if (p == 0) first = n / 4 - kept;
    }
    CHECK(zeros >= 3 * n / 4 / 2);
    CHECK(zeros < 3 * n / 4 / 2 + 16);
    CHECK(first == most);
  }
}

TEST_CASE("two of four: the cheapest pair of each four, forward") {
  const Index n = 11, m = 5;  // the last three: one of them
  const MatrixXd weight = NormalMatrix(n, m, 5), gram = Gram(n, 6);
  const SweepFactor factor = FactorOf(gram);
  const Swept swept = Sweep(weight, factor, Task(Pattern::kTwoOfFour, 0.5, n, m));
  CHECK(HasZeros(swept));
  for (Index c = 0; c < m; ++c) {
    for (const auto& [top, depth, wanted] :
         {std::tuple<Index, Index, Index>{0, 4, 2}, {4, 4, 2}, {8, 3, 1}}) {
      CHECK(swept.zeros.col(c).segment(top, depth).cast<Index>().sum() == wanted);
    }
    // The first four of this output alone, every pair tried.
    double least = INFINITY;
    ZeroMask best;
    for (Index a = 0; a < 4; ++a) {
      for (Index b = a + 1; b < 4; ++b) {
        ZeroMask zeros = ZeroMask::Zero(n, 1);
        zeros(a, 0) = zeros(b, 0) = 1;
        const MatrixXd w = weight.col(c);
        const double error =
            DampedError(gram, factor.damping, VectorXd::Ones(1), w - SweepGiven(w, factor, zeros));
        if (error >= least) continue;
        least = error;
        best = zeros;
      }
    }
    CHECK(swept.zeros.col(c).head(4) == best.col(0).head(4));
  }
  const Swept dropped = DropLeast(weight, VectorXd::Ones(n), Task(Pattern::kTwoOfFour, 0.5, n, m));
  for (Index c = 0; c < m; ++c) {
    for (Index i = 0; i < 4; ++i) {
      Index smaller = 0;
      for (Index j = 0; j < 4; ++j) smaller += std::abs(weight(j, c)) < std::abs(weight(i, c));
      CHECK(dropped.zeros(i, c) == (smaller < 2));
    }
  }
}

TEST_CASE("zeros that are there stay and count") {
  const Index n = 64, m = 64;
  for (const Pattern pattern : {Pattern::kBlock, Pattern::kBlock64, Pattern::kBlock128,
                                Pattern::kTwoOfFour, Pattern::kUnstructured}) {
    CAPTURE(static_cast<int>(pattern));
    MatrixXd weight =
        NormalMatrix(n, m, 8) + MatrixXd::Constant(n, m, 20);  // zeros would not be chosen
    weight.block(8, 32, 4, 32).setZero();
    weight(1, 1) = weight(2, 1) = weight(3, 1) = 0;
    SweepTask task = Task(pattern, 0.25, n, m);
    task.forced = ExistingZeros(weight, pattern);
    const bool single = pattern == Pattern::kTwoOfFour || pattern == Pattern::kUnstructured;
    CHECK(task.forced.cast<Index>().sum() == 128 + (single ? 3 : 0));
    for (const Swept& swept :
         {Sweep(weight, FactorOf(Gram(n, 9)), task), DropLeast(weight, VectorXd::Ones(n), task)}) {
      CHECK(HasZeros(swept));
      CHECK(((task.forced.array() == 0) || (swept.zeros.array() != 0)).all());
      if (pattern == Pattern::kBlock || pattern == Pattern::kUnstructured) {
        CHECK(ZeroShare(swept.zeros) == Approx(0.25));
      }
    }
  }
}

TEST_CASE("more zeros than asked for all stay") {
  const Index n = 32, m = 32;
  MatrixXd weight = NormalMatrix(n, m, 1);
  weight.topRows(16).setZero();
  SweepTask task = Task(Pattern::kBlock, 0.25, n, m);
  task.forced = ExistingZeros(weight, Pattern::kBlock);
  CHECK(Sweep(weight, FactorOf(Gram(n, 2)), task).zeros == task.forced);
}

TEST_CASE("inputs that are always zero and outputs that are go first and break nothing") {
  const Index n = 24, m = 40;
  MatrixXd weight = NormalMatrix(n, m, 3), gram = Gram(n, 4);
  gram.row(5).setZero();
  gram.col(5).setZero();
  weight.col(7).setZero();
  weight.row(9).setZero();
  for (const Pattern pattern : {Pattern::kBlock, Pattern::kTwoOfFour, Pattern::kUnstructured}) {
    const Swept swept = Sweep(weight, FactorOf(gram), Task(pattern, 0.5, n, m));
    CHECK(swept.weight.allFinite());
    CHECK(swept.weight.col(7).isZero(0));
  }
  CHECK(Sweep(weight, FactorOf(MatrixXd::Zero(n, n)), Task(Pattern::kBlock, 0.5, n, m))
            .weight.allFinite());
}

TEST_CASE("the least products of weight and input size go") {
  MatrixXd weight(4, 2);
  weight << 1, 4, 2, 3, 3, 2, 4, 1;
  SweepTask task = Task(Pattern::kUnstructured, 0.5, 4, 2);
  VectorXd x(4);
  x << 100, 1, 1, 1;  // mean squares: sizes 10, 1, 1, 1
  const Swept swept = DropLeast(weight, x, task);
  CHECK(swept.zeros.row(0).isZero());
  CHECK(swept.zeros.cast<int>().sum() == 4);
  CHECK((swept.zeros(1, 0) && swept.zeros(2, 1) && swept.zeros(3, 1)));
  CHECK(((swept.zeros.array() != 0) || (swept.weight.array() == weight.array())).all());
}

TEST_CASE("a refit is the least squares solution for its zeros") {
  const Index n = 20, m = 70;
  const MatrixXd weight = NormalMatrix(n, m, 5), gram = Gram(n, 6);
  const SweepFactor factor = FactorOf(gram);
  const Swept swept = Sweep(weight, factor, Task(Pattern::kBlock, 0.5, n, m));
  const std::vector<MatrixXd> targets = {gram * weight, 3 * gram * weight};
  const std::vector<MatrixXd> both =
      RefitGiven(weight, gram, targets, swept.zeros, Pattern::kBlock);
  const MatrixXd& refitted = both[0];
  CHECK(both[1] == RefitGiven(weight, gram, {&targets[1], 1}, swept.zeros, Pattern::kBlock)[0]);
  CHECK((both[1] - refitted).norm() > refitted.norm());
  CHECK(HasZeros({refitted, swept.zeros}));
  for (Index c = 0; c < m; c += 32) {
    std::vector<Index> kept;
    for (Index i = 0; i < n; ++i) {
      if (!swept.zeros(i, c)) kept.push_back(i);
    }
    if (kept.empty()) continue;
    const double damping = 0.01 * MatrixXd(gram(kept, kept)).diagonal().mean();
    const MatrixXd left =
        gram(kept, kept) + damping * MatrixXd::Identity(std::ssize(kept), std::ssize(kept));
    const VectorXd right = gram(kept, Eigen::all) * weight.col(c) + damping * weight(kept, c);
    CHECK((left * refitted(kept, c) - right).cwiseAbs().maxCoeff() < 1e-9);
  }
  const VectorXd g = VectorXd::Ones(m);
  CHECK(OutputError(gram, g, weight - refitted) < OutputError(gram, g, weight - swept.weight));
  CHECK(OutputError(gram, g, weight - refitted) ==
        Approx(DampedError(gram, 0, g, weight - refitted)));
}

}  // namespace
}  // namespace sparsefuse

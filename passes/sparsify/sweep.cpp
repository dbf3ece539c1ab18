#include "passes/sparsify/sweep.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <limits>
#include <numeric>
#include <utility>
#include <vector>

#include "onnx_io/error.h"
#include "passes/statistics/dense.h"

namespace sparsefuse {
namespace {

using Eigen::Index;
using Eigen::MatrixXd;
using Eigen::VectorXd;

constexpr Index kSpan = 128;    // inputs between two updates of all later ones
constexpr double kForced = -1;  // less than any cost

// Σ over the cell's outputs of g ‖L⁻¹ W_Q‖² for one row of cells. Q = inputs from `top` on.
Eigen::RowVectorXd CellCosts(const MatrixXd& rows, const MatrixXd& lower,
                             const VectorXd& importance, const CellGrid& grid) {
  const MatrixXd errors = lower.triangularView<Eigen::Lower>().solve(rows);
  const Eigen::RowVectorXd costs =
      errors.colwise().squaredNorm().cwiseProduct(importance.transpose());
  Eigen::RowVectorXd cells(grid.columns);
  for (Index c = 0; c < grid.columns; ++c) {
    const Index left = c * grid.width;
    cells[c] = costs.segment(left, std::min(grid.width, costs.size() - left)).sum();
  }
  return cells;
}

// One cost a cell; those that are zero already get kForced. lower(top, depth): L of these inputs.
MatrixXd AllCosts(const MatrixXd& weight, const SweepTask& task, const CellGrid& grid,
                  const std::function<MatrixXd(Index top, Index depth)>& lower) {
  MatrixXd costs(grid.rows, grid.columns);
  for (Index r = 0; r < grid.rows; ++r) {
    const Index top = r * grid.depth, depth = std::min(grid.depth, weight.rows() - top);
    costs.row(r) =
        CellCosts(weight.middleRows(top, depth), lower(top, depth), task.importance, grid);
    for (Index c = 0; c < grid.columns; ++c) {
      const Index left = c * grid.width, width = std::min(grid.width, weight.cols() - left);
      if (task.forced.block(top, left, depth, width).all()) costs(r, c) = kForced;
    }
  }
  return costs;
}

using Cell = std::pair<Index, Index>;

// The `count` cheapest of `cells`, at least the forced ones; the earlier one of equals.
std::vector<Cell> Cheapest(std::vector<Cell> cells, const MatrixXd& costs, Index count) {
  std::stable_sort(cells.begin(), cells.end(), [&](const Cell& a, const Cell& b) {
    return costs(a.first, a.second) < costs(b.first, b.second);
  });
  while (count < static_cast<Index>(cells.size()) &&
         costs(cells[static_cast<size_t>(count)].first, cells[static_cast<size_t>(count)].second) ==
             kForced) {
    ++count;
  }
  cells.resize(static_cast<size_t>(std::min(count, static_cast<Index>(cells.size()))));
  return cells;
}

std::vector<Cell> CellsOf(Index first_row, Index rows, Index first_column, Index columns) {
  std::vector<Cell> cells;
  for (Index r = first_row; r < first_row + rows; ++r) {
    for (Index c = first_column; c < first_column + columns; ++c) cells.emplace_back(r, c);
  }
  return cells;
}

// Whether columns of cells compete for the zeros, or each has its own. `rows` of cells.
bool ColumnsCompete(const ZeroPattern& pattern, Index rows) {
  if (pattern.pattern == Pattern::kUnstructured) return pattern.scope == Scope::kLayer;
  return IsSquare(pattern.pattern) || pattern.quad_multiple <= 1 ||
         rows < 2 * pattern.quad_multiple;
}

// Zero cells of each column of cells, so that what stays is a multiple and costs are least: costs
// per cell rise from step to step, so the cheapest step always comes next.
std::vector<Index> CountsInMultiples(const MatrixXd& costs, Index multiple, Index wanted) {
  struct Step {
    double each;
    Index column, count;
  };
  std::vector<Step> steps;
  for (Index c = 0; c < costs.cols(); ++c) {
    std::vector<double> sorted(costs.col(c).begin(), costs.col(c).end());
    std::sort(sorted.begin(), sorted.end());
    double before = -1;
    for (Index done = 0, next = 0; done < costs.rows(); done = next) {
      next =
          done + (costs.rows() % multiple != 0 && done == 0 ? costs.rows() % multiple : multiple);
      double sum = 0;
      for (Index i = done; i < next; ++i) sum += std::max(sorted[static_cast<size_t>(i)], 0.0);
      before = std::max(before, sum / static_cast<double>(next - done));
      steps.push_back({before, c, next - done});
    }
  }
  std::stable_sort(steps.begin(), steps.end(),
                   [](const Step& a, const Step& b) { return a.each < b.each; });
  std::vector<Index> counts(static_cast<size_t>(costs.cols()));
  for (const Step& step : steps) {
    if (wanted <= 0) break;
    counts[static_cast<size_t>(step.column)] += step.count;
    wanted -= step.count;
  }
  return counts;
}

// Which cells become zero when each is looked at alone.
std::vector<Cell> ChooseCells(const MatrixXd& costs, const SweepTask& task) {
  const Index rows = costs.rows(), columns = costs.cols();
  const auto part = [&](Index of) {
    return static_cast<Index>(std::ceil(task.share * static_cast<double>(of) - 1e-9));
  };
  const ZeroPattern& pattern = task.pattern;
  if (ColumnsCompete(pattern, rows)) {
    return Cheapest(CellsOf(0, rows, 0, columns), costs, part(rows * columns));
  }
  std::vector<Index> counts(static_cast<size_t>(columns), part(rows));
  if (pattern.pattern == Pattern::kBlock) {
    counts = CountsInMultiples(costs, pattern.quad_multiple, part(rows * columns));
  }
  std::vector<Cell> chosen;
  for (Index c = 0; c < columns; ++c) {
    const std::vector<Cell> own =
        Cheapest(CellsOf(0, rows, c, 1), costs, counts[static_cast<size_t>(c)]);
    chosen.insert(chosen.end(), own.begin(), own.end());
  }
  return chosen;
}

void Fill(ZeroMask& zeros, const CellGrid& grid, const std::vector<Cell>& cells) {
  for (const auto& [r, c] : cells) {
    const Index top = r * grid.depth, left = c * grid.width;
    zeros
        .block(top, left, std::min(grid.depth, zeros.rows() - top),
               std::min(grid.width, zeros.cols() - left))
        .setOnes();
  }
}

// Bits 0…3: which of up to four weights become zero at the least forward cost; half of them, all
// that are forced among them. `upper`: U of these inputs.
unsigned CheapestOfFour(const Eigen::VectorXd& weights, const MatrixXd& upper, unsigned forced) {
  const auto depth = static_cast<unsigned>(weights.size());
  const int wanted = static_cast<int>(depth / 2);
  if (__builtin_popcount(forced) >= wanted) return forced;
  double least = std::numeric_limits<double>::infinity();
  unsigned best = forced;
  for (unsigned mask = 0; mask < (1U << depth); ++mask) {
    if (__builtin_popcount(mask) != wanted || (mask & forced) != forced) continue;
    std::array<double, 4> left{};
    for (unsigned i = 0; i < depth; ++i) left[i] = weights[i];
    double cost = 0;
    for (unsigned i = 0; i < depth; ++i) {
      if (!(mask >> i & 1U)) continue;
      const double error = left[i] / upper(i, i);
      cost += error * error;
      for (unsigned j = i + 1; j < depth; ++j) left[j] -= upper(i, j) * error;
    }
    if (!(cost < least)) continue;
    least = cost;
    best = mask;
  }
  return best;
}

// `rows`: up to four inputs of all outputs.
void ChooseTwoOfFour(const MatrixXd& rows, const MatrixXd& upper, const ZeroMask& forced, Index top,
                     ZeroMask& zeros) {
  for (Index c = 0; c < rows.cols(); ++c) {
    unsigned fixed = 0;
    for (Index i = 0; i < rows.rows(); ++i) fixed |= unsigned{forced(top + i, c)} << i;
    const unsigned mask = CheapestOfFour(rows.col(c), upper, fixed);
    for (Index i = 0; i < rows.rows(); ++i) zeros(top + i, c) = mask >> i & 1U;
  }
}

// The sweep itself, outputs as rows so that an input's weights lie together. choose(top, weights):
// called for every kSpan inputs with their weights as they are by then.
MatrixXd RunSweep(const MatrixXd& weight, const MatrixXd& upper, const ZeroMask& zeros, Index step,
                  const std::function<void(Index top, const MatrixXd& rows)>& choose) {
  MatrixXd outputs = weight.transpose();
  const Index inputs = weight.rows();
  for (Index top = 0; top < inputs; top += kSpan) {
    const Index end = std::min(top + kSpan, inputs);
    MatrixXd errors = MatrixXd::Zero(outputs.rows(), end - top);
    for (Index j = top; j < end; ++j) {
      if ((j - top) % step == 0) {
        choose(j, outputs.middleCols(j, std::min(step, inputs - j)).transpose());
      }
      auto error = errors.col(j - top);
      for (Index c = 0; c < outputs.rows(); ++c) {
        if (!zeros(j, c)) continue;
        error[c] = outputs(c, j) / upper(j, j);
      }
      const Index rest = end - j - 1;
      outputs.middleCols(j + 1, rest).noalias() -= error * upper.row(j).segment(j + 1, rest);
      for (Index c = 0; c < outputs.rows(); ++c) {
        if (zeros(j, c)) outputs(c, j) = 0;
      }
    }
    outputs.rightCols(inputs - end).noalias() -=
        errors * upper.block(top, end, end - top, inputs - end);
  }
  return outputs.transpose();
}

}  // namespace

SweepFactor FactorOf(const MatrixXd& gram) {
  // H + λI = M Mᵀ with M upper triangular, from the decomposition in reverse order; U = M⁻¹.
  const DampedCholesky cholesky = Decompose(gram.reverse());
  const MatrixXd lower = cholesky.factor.matrixL();
  const MatrixXd m = lower.reverse();
  const MatrixXd one = MatrixXd::Identity(gram.rows(), gram.cols());
  return {m.triangularView<Eigen::Upper>().solve(one), cholesky.damping};
}

MatrixXd SweepFactor::Solve(const MatrixXd& right) const {
  const MatrixXd half = upper.triangularView<Eigen::Upper>() * right;
  return upper.transpose().triangularView<Eigen::Lower>() * half;
}

MatrixXd SweepFactor::Inverse(Index first, Index count) const {
  const auto columns = upper.block(0, first, first + count, count);
  return columns.transpose() * columns;
}

Swept Sweep(const MatrixXd& weight, const SweepFactor& factor, const SweepTask& task) {
  Swept swept{{}, ZeroMask::Zero(weight.rows(), weight.cols())};
  const MatrixXd& upper = factor.upper;
  if (task.pattern.pattern == Pattern::kTwoOfFour) {
    swept.weight = RunSweep(weight, upper, swept.zeros, 4, [&](Index top, const MatrixXd& rows) {
      ChooseTwoOfFour(rows, upper.block(top, top, rows.rows(), rows.rows()), task.forced, top,
                      swept.zeros);
    });
    return swept;
  }
  const CellGrid grid = Cells(task.pattern.pattern, weight.rows(), weight.cols());
  const MatrixXd alone = AllCosts(weight, task, grid, [&](Index top, Index depth) -> MatrixXd {
    return Eigen::LLT<MatrixXd>(factor.Inverse(top, depth)).matrixL();
  });
  // Of each panel of inputs, and each strip of outputs unless they compete.
  const bool compete = ColumnsCompete(task.pattern, grid.rows);
  const Index panel_rows = kSpan / grid.depth, strips = compete ? 1 : grid.columns;
  Eigen::MatrixXi quota = Eigen::MatrixXi::Zero((grid.rows + panel_rows - 1) / panel_rows, strips);
  for (const auto& [r, c] : ChooseCells(alone, task)) ++quota(r / panel_rows, compete ? 0 : c);
  swept.weight = RunSweep(weight, upper, swept.zeros, kSpan, [&](Index top, const MatrixXd& rows) {
    SweepTask part = task;
    part.forced = task.forced.middleRows(top, rows.rows());
    const CellGrid own = Cells(task.pattern.pattern, rows.rows(), rows.cols());
    const MatrixXd costs = AllCosts(rows, part, own, [&](Index first, Index depth) -> MatrixXd {
      return upper.block(top + first, top + first, depth, depth).transpose();
    });
    ZeroMask zeros = part.forced;
    for (Index s = 0; s < strips; ++s) {
      Fill(zeros, own,
           Cheapest(compete ? CellsOf(0, own.rows, 0, own.columns) : CellsOf(0, own.rows, s, 1),
                    costs, quota(top / kSpan, s)));
    }
    swept.zeros.middleRows(top, rows.rows()) = zeros;
  });
  return swept;
}

MatrixXd SweepGiven(const MatrixXd& weight, const SweepFactor& factor, const ZeroMask& zeros) {
  return RunSweep(weight, factor.upper, zeros, kSpan, [](Index, const MatrixXd&) {});
}

Swept DropLeast(const MatrixXd& weight, const VectorXd& x, const SweepTask& task) {
  Swept swept{{}, task.forced};
  const VectorXd scale = x.cwiseMax(1e-30).cwiseSqrt().cwiseInverse();  // L⁻¹ = diag √x
  if (task.pattern.pattern == Pattern::kTwoOfFour) {
    for (Index top = 0; top < weight.rows(); top += 4) {
      const Index depth = std::min<Index>(4, weight.rows() - top);
      ChooseTwoOfFour(weight.middleRows(top, depth),
                      MatrixXd(scale.segment(top, depth).asDiagonal()), task.forced, top,
                      swept.zeros);
    }
  } else {
    const CellGrid grid = Cells(task.pattern.pattern, weight.rows(), weight.cols());
    const MatrixXd costs = AllCosts(weight, task, grid, [&](Index top, Index depth) -> MatrixXd {
      return scale.segment(top, depth).asDiagonal();
    });
    Fill(swept.zeros, grid, ChooseCells(costs, task));
  }
  swept.weight = (swept.zeros.array() != 0).select(0, weight);
  return swept;
}

std::vector<MatrixXd> RefitGiven(const MatrixXd& weight, const MatrixXd& gram,
                                 std::span<const MatrixXd> targets, const ZeroMask& zeros,
                                 Pattern pattern) {
  // Zeros that were there before come in strips of 32.
  const CellGrid grid =
      Cells(IsSquare(pattern) ? Pattern::kBlock : pattern, weight.rows(), weight.cols());
  std::vector<MatrixXd> refitted(targets.size(), MatrixXd::Zero(weight.rows(), weight.cols()));
  for (Index c = 0; c < grid.columns; ++c) {
    const Index left = c * grid.width, width = std::min(grid.width, weight.cols() - left);
    std::vector<Index> kept;
    for (Index j = 0; j < weight.rows(); ++j) {
      if (!zeros(j, left)) kept.push_back(j);
    }
    if (kept.empty()) continue;
    const auto strip = Eigen::seqN(left, width);
    const DampedCholesky cholesky = Decompose(gram(kept, kept));
    for (size_t t = 0; t < targets.size(); ++t) {
      refitted[t](kept, strip) =
          cholesky.Solve(targets[t](kept, strip) + cholesky.damping * weight(kept, strip));
    }
  }
  return refitted;
}

double OutputError(const MatrixXd& gram, const VectorXd& importance, const MatrixXd& delta) {
  return (gram * delta).cwiseProduct(delta).colwise().sum().dot(importance);
}

}  // namespace sparsefuse

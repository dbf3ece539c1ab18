#include "passes/sparsify/apply.h"

#include <algorithm>
#include <limits>
#include <optional>
#include <utility>

#include "passes/statistics/student_walk.h"

namespace sparsefuse {
namespace {

using Eigen::MatrixXd;
using Eigen::VectorXd;

constexpr double kGramBudget = 256.0 * (1 << 20);  // bytes of Gram matrices at a time

double GramBytes(const MatrixView& view) {
  return 8.0 * static_cast<double>(view.inputs * view.inputs);
}

Model SolveInSequence(const Model& model, std::span<const SparseLayer> layers,
                      std::span<const double> shares, const SparsifySettings& settings,
                      const Context& context) {
  std::vector<MatrixView> views;
  for (size_t i = 0; i < layers.size(); ++i) {
    if (shares[i] > 0) views.push_back(layers[i].matrix);
  }
  StudentWalk walk(model, views, context);
  int64_t done = 0;
  for (size_t i = 0; i < layers.size(); ++i) {
    if (shares[i] == 0) continue;
    walk.Reach(*layers[i].matrix.node);
    const PairStatistics& pair = walk.Inputs(layers[i].matrix);
    LayerProblem problem = ProblemOf(layers[i], pair);
    std::optional<Model> best;
    double least = std::numeric_limits<double>::infinity();
    for (const double teacher_share : {1.0, 0.5, 0.0}) {
      problem.Aim(pair, teacher_share);
      const SolvedLayer solved = problem.Solve(shares[i], settings);
      Model candidate = walk.student().Clone();
      SetWeight(candidate, SameMatrix(candidate, layers[i].matrix), solved.weight, solved.bias);
      const double error = walk.Error(candidate);
      if (best && !(error < least)) continue;
      least = error;
      best = std::move(candidate);
    }
    walk.Accept(std::move(*best));
    context.progress("zeros", ++done, static_cast<int64_t>(views.size()));
  }
  return walk.Finish();
}

Model SolveOnOriginal(const Model& model, std::span<const SparseLayer> layers,
                      std::span<const double> shares, const SparsifySettings& settings,
                      const Context& context) {
  Model student = model.Clone();
  std::vector<const SparseLayer*> taken;
  std::vector<double> own;
  for (size_t i = 0; i < layers.size(); ++i) {
    if (shares[i] == 0) continue;
    taken.push_back(&layers[i]);
    own.push_back(shares[i]);
  }
  CollectInputs(model, taken, settings.method == Method::kSparseGpt, context,
                [&](size_t i, const RowStatistics& rows) {
                  const SolvedLayer solved = ProblemOf(*taken[i], rows).Solve(own[i], settings);
                  SetWeight(student, SameMatrix(student, taken[i]->matrix), solved.weight,
                            solved.bias);
                });
  return student;
}

}  // namespace

SolvedLayer LayerProblem::Solve(double share, const SparsifySettings& settings) const {
  const SweepTask task{settings.pattern, share, *forced, importance};
  if (settings.method != Method::kSparseGpt) {
    const VectorXd x =
        settings.method == Method::kWanda ? squares : VectorXd::Ones(original.rows()).eval();
    Swept dropped = DropLeast(original, x, task);
    return {std::move(dropped.weight), bias, std::move(dropped.zeros)};
  }
  const bool wide = IsWide(settings.pattern.pattern);
  Swept swept = wide && settings.choice == BlockChoice::kSize ? DropLeast(dense, squares, task)
                                                              : Sweep(dense, factor, task);
  if (wide) {
    swept.weight = RefitGiven(original, gram, target, swept.zeros, settings.pattern.pattern);
  }
  SolvedLayer solved{std::move(swept.weight), bias, std::move(swept.zeros)};
  solved.bias += original.transpose() * teacher_mean - solved.weight.transpose() * student_mean;
  return solved;
}

void LayerProblem::Aim(const PairStatistics& pair, double teacher_share) {
  teacher_mean = teacher_share * pair.teacher_mean + (1 - teacher_share) * pair.student_mean;
  target = (1 - teacher_share) * (gram * original);
  dense = original;
  if (teacher_share == 0) return;
  target += teacher_share / pair.count * (pair.cross * original);
  dense = factor.Solve(target + factor.damping * original);
}

double LayerProblem::Loss(const SolvedLayer& solved) const {
  const MatrixXd delta = original - solved.weight;
  const VectorXd shift = delta.transpose() * student_mean + bias - solved.bias;
  return OutputError(gram, importance, delta) + shift.cwiseAbs2().dot(importance);
}

void CollectInputs(const Model& model, std::span<const SparseLayer* const> layers, bool gram,
                   const Context& context,
                   const std::function<void(size_t i, const RowStatistics& rows)>& each) {
  std::vector<MatrixView> views;
  for (const SparseLayer* layer : layers) views.push_back(layer->matrix);
  const Batches fit =
      MakeBatches(*context.calibration, context.splits.fit, ChooseBatch(model, views, context));
  const std::optional<std::string> mask = FindPaddingMask(model, fit);
  for (size_t first = 0, last = 0; first < layers.size(); first = last) {
    double bytes = 0;
    std::vector<RowRequest> requests;
    while (last < layers.size() &&
           (last == first || bytes + GramBytes(views[last]) < kGramBudget)) {
      requests.push_back({InputRows(views[last]), gram});
      bytes += GramBytes(views[last++]);
    }
    const std::vector<RowStatistics> rows = CollectRows(model, requests, fit, mask, context);
    for (size_t i = first; i < last; ++i) each(i, rows[i - first]);
  }
}

LayerProblem ProblemOf(const SparseLayer& layer, const RowStatistics& rows) {
  LayerProblem problem{Weight(layer.matrix),
                       Bias(layer.matrix),
                       &layer.existing,
                       layer.importance,
                       rows.mean,
                       rows.mean,
                       rows.squares / rows.count,
                       rows.gram / rows.count,
                       {},
                       {},
                       {}};
  if (rows.gram.size() == 0) return problem;
  problem.target = problem.gram * problem.original;
  problem.dense = problem.original;
  problem.factor = FactorOf(problem.gram);
  return problem;
}

LayerProblem ProblemOf(const SparseLayer& layer, const PairStatistics& pair) {
  return ProblemOf(layer, RowStatistics{.count = pair.count,
                                        .mean = pair.student_mean,
                                        .squares = pair.student_gram.diagonal() +
                                                   pair.count * pair.student_mean.cwiseAbs2(),
                                        .gram = pair.student_gram});
}

Model ApplyZeros(const Model& model, std::span<const SparseLayer> layers,
                 std::span<const double> shares, const SparsifySettings& settings, Repair repair,
                 const Context& context) {
  if (std::all_of(shares.begin(), shares.end(), [](double share) { return share == 0; })) {
    return model.Clone();
  }
  if (repair == Repair::kSequence && settings.method == Method::kSparseGpt) {
    return SolveInSequence(model, layers, shares, settings, context);
  }
  return SolveOnOriginal(model, layers, shares, settings, context);
}

}  // namespace sparsefuse

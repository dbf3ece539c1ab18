#include "passes/sparsify/apply.h"

#include <optional>
#include <utility>

namespace sparsefuse {

using Eigen::MatrixXd;
using Eigen::VectorXd;

Refit LayerProblem::Solve(double share, const SparsifySettings& settings) const {
  const SweepTask task{settings.pattern, share, *forced, importance};
  if (settings.method != Method::kSparseGpt) {
    const VectorXd x =
        settings.method == Method::kWanda ? squares : VectorXd::Ones(original.rows()).eval();
    return {DropLeast(original, x, task).weight, bias};
  }
  const bool wide = IsWide(settings.pattern.pattern);
  Swept swept = wide && settings.choice == BlockChoice::kSize ? DropLeast(original, squares, task)
                                                              : Sweep(original, factor, task);
  if (wide) {
    const MatrixXd target = gram * original;
    swept.weight =
        RefitGiven(original, gram, {&target, 1}, swept.zeros, settings.pattern.pattern)[0];
  }
  VectorXd moved = bias + (original - swept.weight).transpose() * mean;
  return {std::move(swept.weight), std::move(moved)};
}

double LayerProblem::Loss(const Refit& solution) const {
  const MatrixXd delta = original - solution.weight;
  const VectorXd shift = delta.transpose() * mean + bias - solution.bias;
  return OutputError(gram, importance, delta) + shift.cwiseAbs2().dot(importance);
}

LayerProblem ProblemOf(const SparseLayer& layer, const RowStatistics& rows, Method method) {
  LayerProblem problem{Weight(layer.matrix),
                       Bias(layer.matrix),
                       &layer.existing,
                       layer.importance,
                       rows.mean,
                       rows.squares / rows.count,
                       rows.gram / rows.count,
                       {}};
  if (method == Method::kSparseGpt) problem.factor = FactorOf(problem.gram);
  return problem;
}

std::vector<Refit> SolveWithZeros(const MatrixView& product, const ZeroMask& zeros, Pattern pattern,
                                  const PairStatistics& pair, std::span<const OutputTarget> targets,
                                  bool with_bias) {
  if (!zeros.any()) return SolveWhole(product, pair, targets, with_bias);
  return SolveTargets(product, pair, targets, with_bias,
                      [&](const MatrixXd& h, std::span<const MatrixXd> rights) {
                        const MatrixXd weight = Weight(product);
                        if (IsWide(pattern)) return RefitGiven(weight, h, rights, zeros, pattern);
                        const SweepFactor factor = FactorOf(h);
                        std::vector<MatrixXd> weights;
                        for (const MatrixXd& right : rights) {
                          const MatrixXd dense = factor.Solve(right + factor.damping * weight);
                          weights.push_back(SweepGiven(dense, factor, zeros));
                        }
                        return weights;
                      });
}

Model ApplyZeros(Evidence& evidence, std::span<const SparseLayer> layers,
                 std::span<const double> shares, const SparsifySettings& settings) {
  Model student = evidence.model().Clone();
  for (size_t i = 0; i < layers.size(); ++i) {
    if (shares[i] == 0) continue;
    const MatrixView& matrix = layers[i].matrix;
    const Refit solution =
        ProblemOf(layers[i], evidence.Input(matrix), settings.method).Solve(shares[i], settings);
    SetWeight(student, SameMatrix(student, matrix), solution.weight, solution.bias);
  }
  return student;
}

Model ResolveInSequence(const Model& model, const Model& zeroed,
                        std::span<const SparseLayer> layers, std::span<const double> shares,
                        Pattern pattern, const Context& context) {
  std::vector<size_t> steps;
  std::vector<MatrixView> views;
  for (size_t i = 0; i < layers.size(); ++i) {
    const MatrixView& matrix = layers[i].matrix;
    if (shares[i] == 0 && (steps.empty() || !ResolvableMatrix(*matrix.node, context))) continue;
    steps.push_back(i);
    views.push_back(matrix);
  }
  StudentWalk walk(model, views, context);
  int64_t done = 0;
  for (const size_t i : steps) {
    const MatrixView& matrix = layers[i].matrix;
    const bool changed = shares[i] > 0;
    walk.Reach(*matrix.node);
    const PairStatistics& pair = walk.Inputs(matrix);
    const std::vector<OutputTarget> targets = walk.Targets(matrix);
    // As it is, a layer without new zeros meets the first.
    const auto wanted = std::span(targets).subspan(changed ? 0 : 1);
    const ZeroMask zeros =
        changed ? ExistingZeros(Weight(SameMatrix(zeroed, matrix)), pattern) : layers[i].existing;
    const bool with_bias = changed || matrix.bias;
    walk.TakeBest(matrix, SolveWithZeros(matrix, zeros, pattern, pair, wanted, with_bias),
                  !changed);
    context.progress("zeros", ++done, std::ssize(steps));
  }
  return walk.Finish();
}

}  // namespace sparsefuse

// Zeros in one layer, and in all of a model.

#ifndef SPARSEFUSE_PASSES_SPARSIFY_APPLY_H_
#define SPARSEFUSE_PASSES_SPARSIFY_APPLY_H_

#include <Eigen/Core>
#include <span>
#include <vector>

#include "passes/sparsify/layers.h"
#include "passes/statistics/gram.h"
#include "passes/statistics/student_walk.h"

namespace sparsefuse {

// What a layer must do, on the inputs that the original gives it:
//   min ‖X W + b − X W' − b'‖²,   b' = b + μᵀ(W − W')
struct LayerProblem {
  Eigen::MatrixXd original;  // W
  Eigen::VectorXd bias;      // b
  const ZeroMask* forced;
  Eigen::VectorXd importance;
  Eigen::VectorXd mean;     // μ
  Eigen::VectorXd squares;  // E[x²]
  Eigen::MatrixXd gram;     // H, divided by the rows
  SweepFactor factor;       // of gram; kSparseGpt

  Refit Solve(double share, const SparsifySettings& settings) const;
  // Σ g E[(y − y')²]
  double Loss(const Refit& solution) const;
};

LayerProblem ProblemOf(const SparseLayer& layer, const RowStatistics& rows, Method method);

// As SolveWhole, with these zeros kept: exactly where outputs share them (IsWide), else by a sweep
// from the solution without zeros. None at all: SolveWhole.
std::vector<Refit> SolveWithZeros(const MatrixView& product, const ZeroMask& zeros, Pattern pattern,
                                  const PairStatistics& pair, std::span<const OutputTarget> targets,
                                  bool with_bias);

// The evidence's model with zeros in `shares` of the layers, each solved on the original's inputs.
Model ApplyZeros(Evidence& evidence, std::span<const SparseLayer> layers,
                 std::span<const double> shares, const SparsifySettings& settings);

// `zeroed`, an ApplyZeros of `model` by kSparseGpt, with the same zeros and everything from the
// first of them on solved once more, layer after layer, on what the changed model itself feeds it.
Model ResolveInSequence(const Model& model, const Model& zeroed,
                        std::span<const SparseLayer> layers, std::span<const double> shares,
                        Pattern pattern, const Context& context);

}  // namespace sparsefuse

#endif  // SPARSEFUSE_PASSES_SPARSIFY_APPLY_H_

// Zeros in one layer, and in all of a model.

#ifndef SPARSEFUSE_PASSES_SPARSIFY_APPLY_H_
#define SPARSEFUSE_PASSES_SPARSIFY_APPLY_H_

#include <Eigen/Core>
#include <functional>
#include <span>
#include <vector>

#include "passes/sparsify/layers.h"
#include "passes/statistics/gram.h"

namespace sparsefuse {

struct SolvedLayer {
  Eigen::MatrixXd weight;
  Eigen::VectorXd bias;
  ZeroMask zeros;
};

// What a layer must do, on the inputs that it will have:
//   min ‖X W + b − X̂ W' − b'‖²,   b' = b + μᵀW − μ̂ᵀW'
struct LayerProblem {
  Eigen::MatrixXd original;  // W
  Eigen::VectorXd bias;      // b
  const ZeroMask* forced;
  Eigen::VectorXd importance;
  Eigen::VectorXd teacher_mean, student_mean;  // μ, μ̂
  Eigen::VectorXd squares;                     // E[x̂²]
  Eigen::MatrixXd gram;                        // Ĥ, divided by the rows
  Eigen::MatrixXd target;                      // C W
  Eigen::MatrixXd dense;  // (Ĥ + λI)⁻¹ (C W + λ W): what the sweep starts from; Ĥ = C: W
  SweepFactor factor;     // of gram; only where there is one

  // Towards the original's outputs, with `teacher_share` of C and the rest of Ĥ.
  void Aim(const PairStatistics& pair, double teacher_share);
  SolvedLayer Solve(double share, const SparsifySettings& settings) const;
  // Σ g E[(y − y')²]
  double Loss(const SolvedLayer& solved) const;
};

// The fit split's statistics of the layers' inputs, as many at a time as fit into memory; each(i,
// rows of layers[i]). With or without Gram matrices.
void CollectInputs(const Model& model, std::span<const SparseLayer* const> layers, bool gram,
                   const Context& context,
                   const std::function<void(size_t i, const RowStatistics& rows)>& each);

// On the original's own inputs. `rows` without a Gram matrix: methods without update only.
LayerProblem ProblemOf(const SparseLayer& layer, const RowStatistics& rows);
// On the student's, as if the original had them too; see Aim.
LayerProblem ProblemOf(const SparseLayer& layer, const PairStatistics& pair);

enum class Repair {
  kSequence,  // solved on the student's inputs, anchored at the original's outputs
  kRefit,     // solved on the original's inputs
};

// `model` with zeros in `shares` of the layers. Methods without update need no repair.
Model ApplyZeros(const Model& model, std::span<const SparseLayer> layers,
                 std::span<const double> shares, const SparsifySettings& settings, Repair repair,
                 const Context& context);

}  // namespace sparsefuse

#endif  // SPARSEFUSE_PASSES_SPARSIFY_APPLY_H_

// Which weights of a linear layer become zero, and how the others make up for it (SparseGPT's
// sweep, Frantar & Alistarh 2023, on cells of any size; design/algorithms.md 3, reference §7.6).
//
// Wanted is W' with zeros in a pattern and a small tr((W − W')ᵀ H (W − W') diag g), for the Gram
// matrix H = XᵀX/T of centred inputs and the importance g of the outputs. With
// (H + λI)⁻¹ = UᵀU, U upper triangular, input after input:
//
//   e = W[j, zeros]/U[j,j],   W[j+1…, zeros] −= U[j, j+1…]ᵀ e,   W[j, zeros] = 0
//
// and Σ g e² is what it costs, damping included. So a cell of inputs Q costs
// Σ g ‖(U_QQ)⁻ᵀ W_Q‖²: exact for everything after it, whatever came before.

#ifndef SPARSEFUSE_PASSES_SPARSIFY_SWEEP_H_
#define SPARSEFUSE_PASSES_SPARSIFY_SWEEP_H_

#include <Eigen/Core>
#include <span>
#include <vector>

#include "passes/statistics/zeros.h"

namespace sparsefuse {

// Of H [n, n], symmetric and positive semi-definite; n³ operations, used for many sweeps.
struct SweepFactor {
  Eigen::MatrixXd upper;  // U
  double damping;         // λ

  Eigen::MatrixXd Solve(const Eigen::MatrixXd& right) const;  // (H + λI)⁻¹ · right
  // A square on the diagonal of (H + λI)⁻¹.
  Eigen::MatrixXd Inverse(Eigen::Index first, Eigen::Index count) const;
};
SweepFactor FactorOf(const Eigen::MatrixXd& gram);

struct SweepTask {
  ZeroPattern pattern;
  // Of the cells, rounded up to whole ones (and to quad_multiple); kTwoOfFour: not read.
  double share = 0.5;
  ZeroMask forced;             // zeros whatever they cost; they count among the share
  Eigen::VectorXd importance;  // g [m], > 0
};

struct Swept {
  Eigen::MatrixXd weight;  // [n, m], zero where `zeros` says so
  ZeroMask zeros;
};

// How many cells of each panel of 128 inputs become zero follows from what each would cost alone,
// when all other weights could make up for it; which of them, from the sweep.
Swept Sweep(const Eigen::MatrixXd& weight, const SweepFactor& factor, const SweepTask& task);

// The sweep for zeros that are chosen already.
Eigen::MatrixXd SweepGiven(const Eigen::MatrixXd& weight, const SweepFactor& factor,
                           const ZeroMask& zeros);

// No update: zeros where Σ w²·x over a cell is least. x [n]: mean squares of the inputs (Wanda,
// Sun et al. 2023) or ones (magnitude).
Swept DropLeast(const Eigen::MatrixXd& weight, const Eigen::VectorXd& x, const SweepTask& task);

// The best W' with these zeros, for patterns whose cells are wide (each strip of outputs with the
// same zeros is one solution of size n):
//
//   W'_K = (H_KK + λI)⁻¹ (T_K + λ W_K),   T = Xᵀ·(the outputs wanted) [n, m]
//
// One a target.
std::vector<Eigen::MatrixXd> RefitGiven(const Eigen::MatrixXd& weight, const Eigen::MatrixXd& gram,
                                        std::span<const Eigen::MatrixXd> targets,
                                        const ZeroMask& zeros, Pattern pattern);

// tr(Δᵀ H Δ diag g)
double OutputError(const Eigen::MatrixXd& gram, const Eigen::VectorXd& importance,
                   const Eigen::MatrixXd& delta);

}  // namespace sparsefuse

#endif  // SPARSEFUSE_PASSES_SPARSIFY_SWEEP_H_

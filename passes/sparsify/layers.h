// The layers that can take zeros, and what zeros in each are predicted to cost.

#ifndef SPARSEFUSE_PASSES_SPARSIFY_LAYERS_H_
#define SPARSEFUSE_PASSES_SPARSIFY_LAYERS_H_

#include <Eigen/Core>
#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "passes/framework/context.h"
#include "passes/sensitivity/evidence.h"
#include "passes/sparsify/sweep.h"
#include "passes/statistics/matrix.h"

namespace sparsefuse {

enum class Method {
  kSparseGpt,  // the rest makes up for what went
  kWanda,      // |w|·‖x‖, no update
  kMagnitude,  // |w|, no update
};

// How kSparseGpt chooses blocks; what stays is solved anew either way. The sweep's choice is the
// better one for the rows that it saw, but compensates more, which other rows may not bear out.
enum class BlockChoice { kSweep, kSize };

struct SparsifySettings {
  ZeroPattern pattern;
  Method method = Method::kSparseGpt;
  BlockChoice choice = BlockChoice::kSweep;  // patterns of blocks
  double sparsity = 0.5;
  bool by_loss = true;          // shares; else the same in every layer
  std::vector<std::string> of;  // patterns of node names; empty: all but the first and last layers
};

struct SparseLayer {
  MatrixView matrix;
  ZeroMask existing;           // zeros that stay, see ExistingZeros
  double existing_blocks;      // share of the weights in zero blocks of 4 × 32
  std::string reason;          // why it is left alone; empty: it is not
  Eigen::VectorXd importance;  // Fisher information of each output, in KL per answer; ones: unknown
  std::vector<double> losses;  // predicted KL per answer at LossShares; empty: not asked for
  double correction = 1;       // measured over predicted KL; 1: not measured
};

// The least share that a layer may get, the one asked for, and the largest. What is predicted of a
// layer alone says little about all together, so they are at most 1/8 apart (OWL, Yin et al. 2024,
// takes 0.08).
std::array<double, 3> LossShares(double sparsity);

// KL per answer when `share` of the layer's cells are zero.
double PredictedLoss(const SparseLayer& layer, double share, double sparsity);

// Every product with a constant matrix in the main graph, in topological order. `model` must
// outlive them. UserError E_CONFIG for an `of` that matches no product.
std::vector<SparseLayer> FindSparseLayers(const Model& model, const SparsifySettings& settings,
                                          const Context& context);

// Importance, and with settings.by_loss losses and corrections. Layers that gradients do not reach
// or that saw fewer than 4 rows of data an input get a reason.
void MeasureLayers(Evidence& evidence, std::vector<SparseLayer>& layers,
                   const SparsifySettings& settings);

// One a layer: the share of its cells that becomes zero; 0 for layers with a reason and those that
// have as many zeros already.
std::vector<double> DistributeShares(std::span<const SparseLayer> layers,
                                     const SparsifySettings& settings, bool by_loss);

}  // namespace sparsefuse

#endif  // SPARSEFUSE_PASSES_SPARSIFY_LAYERS_H_

// Label-free gradients at the original model: backward sweeps from random seeds whose second moment
// is the Fisher information of the outputs (design/algorithms.md 1.3; reference §6.2).
//
//   logits          v = √p∘ε − p⟨√p, ε⟩   E[v vᵀ] = diag(p) − p pᵀ, the Hessian of KL
//   probabilities   v = ε/√p              the same, seen from p
//   one value       v = ε/σ               σ: its spread over the samples
//
// with ε ~ N(0, I), drawn anew for every answer (token), sample and draw.

#ifndef SPARSEFUSE_PASSES_SENSITIVITY_FISHER_H_
#define SPARSEFUSE_PASSES_SENSITIVITY_FISHER_H_

#include <Eigen/Core>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "onnx_io/model.h"
#include "passes/framework/context.h"

namespace sparsefuse {

// An activation seen along one axis.
struct Tap {
  std::string tensor;
  bool image;  // features along axis 1 ([batch, channels, …]), else along the last
  int64_t length;
};

inline constexpr int64_t kMostGramColumns = 1024;

struct FisherRequest {
  std::vector<Tap> masks;    // whose positions along the axis can be switched off
  std::vector<Tap> columns;  // outputs of products
};

struct Fisher {
  // One a mask tap: [samples × draws, length], Σ over the sample's tokens or pixels of x·∂L/∂x:
  // the derivative of L when the position is scaled, as by a mask.
  std::vector<Eigen::MatrixXd> masks;
  // One a column tap: [length], Σ over tokens or pixels of (∂L/∂y)², averaged over samples.
  std::vector<Eigen::VectorXd> columns;
  // The same of the outer product (∂L/∂y)(∂L/∂y)ᵀ: [length, length]; empty above kMostGramColumns.
  std::vector<Eigen::MatrixXd> column_grams;
  int64_t samples = 0;  // with draws
  double answers = 1;   // rows of classes (tokens) a sample
};

// Sweeps of `samples` with `draws` seeds each. The seed starts at the model's first floating output
// with at least 2 classes, else its first floating output. UserErrors: E_UNSUPPORTED naming the
// node where the gradient of a wanted tensor ends (see Unreachable, which tells beforehand);
// those of AddGradients.
Fisher CollectFisher(const Model& model, const FisherRequest& request, const Context& context,
                     std::span<const int64_t> samples, int64_t draws);

// For each of `tensors` why no gradient reaches it from `output`, a graph output ("node … : no rule
// for Loop"); empty: one does.
std::vector<std::string> Unreachable(const Model& model, const std::string& output,
                                     std::span<const std::string> tensors);

}  // namespace sparsefuse

#endif  // SPARSEFUSE_PASSES_SENSITIVITY_FISHER_H_

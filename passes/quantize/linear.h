// Linear layers of a model: MatMul and Gemm with a constant weight, any rank of X, transposes and a
// constant bias folded in.
//
//   Y[..., N] = X[..., K] · W + b

#ifndef SPARSEFUSE_PASSES_QUANTIZE_LINEAR_H_
#define SPARSEFUSE_PASSES_QUANTIZE_LINEAR_H_

#include <cstdint>
#include <string>
#include <vector>

#include "onnx_io/model.h"
#include "passes/framework/pass.h"

namespace sparsefuse {

struct LinearLayer {
  Node* product = nullptr;          // MatMul or Gemm
  Node* transpose = nullptr;        // of the weight, when it is spelt as a node of its own
  Node* bias_add = nullptr;         // Add after a MatMul, when folded in
  Value* input = nullptr;           // X
  Value* weight = nullptr;          // the constant's value; may have other uses (tied weights)
  Value* output = nullptr;          // Y: of bias_add if there is one, else of product
  bool weight_is_rows = false;      // the constant lies as [N, K], one row an output
  float weight_factor = 1;          // Gemm's alpha
  int64_t inputs = 0, outputs = 0;  // K, N
  std::vector<float> bias;          // N values, Gemm's beta multiplied in; empty: none

  // W as float [N, K], one row an output, alpha multiplied in. A copy: K·N·4 bytes.
  std::vector<float> WeightRows() const;
};

inline constexpr int64_t kMinLinearInputs = 32;   // K
inline constexpr int64_t kMinLinearOutputs = 16;  // N

// Gemm with transA = 1 and a constant weight: its X goes through a Transpose of its own, so that
// every linear layer reads [..., K]. True if there was any.
bool UntransposeInputs(Model& model);

// Every linear layer of the main graph that can be quantised, in topological order. What is not
// taken is reported with its reason: subgraphs, weights that are not constant or not of rank 2,
// layers that are too small, excluded nodes, types other than float.
std::vector<LinearLayer> FindLinearLayers(Model& model, const Context& context, PassStats& stats);

}  // namespace sparsefuse

#endif  // SPARSEFUSE_PASSES_QUANTIZE_LINEAR_H_

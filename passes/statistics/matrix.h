// A product with a constant weight seen as a matrix, whatever operator computes it:
//
//   Y[T, m] = X[T, n] · W[n, m] + b[m]
//
// T runs over samples and tokens, or over samples and places of a convolution's output. A
// convolution's X is what its window sees (im2col), n = input channels · kernel elements in the
// weight's own order [Cin, kernel…]: channel c is the rows [c·k, (c + 1)·k) of W, k = n / Cin.

#ifndef SPARSEFUSE_PASSES_STATISTICS_MATRIX_H_
#define SPARSEFUSE_PASSES_STATISTICS_MATRIX_H_

#include <Eigen/Core>
#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "onnx_io/model.h"

namespace sparsefuse {

struct MatrixView {
  const Node* node = nullptr;       // MatMul, Gemm, or Conv of one group
  const Node* bias_add = nullptr;   // the Add of a constant row after a MatMul, its only reader
  const Value* input = nullptr;     // X; for a Gemm with transA = 1 its transpose
  const Value* output = nullptr;    // Y: of bias_add if there is one, else of node
  const Value* weight = nullptr;    // the constant, perhaps behind a Transpose; may be shared
  const Value* bias = nullptr;      // constant; null: none
  int64_t inputs = 0, outputs = 0;  // n, m
  int64_t kernel = 1;               // rows of W that go with one input channel
  bool weight_is_rows = false;      // the constant lies as [m, n]
  float weight_factor = 1, bias_factor = 1;  // Gemm's alpha, beta
};

// The view of `node`; nothing for any other node, then `reason` (if given) says why: "weight is not
// constant", "4 groups", … Weights may be float, double, float16 or bfloat16.
std::optional<MatrixView> AsMatrix(const Node& node, std::string* reason = nullptr);

Eigen::MatrixXd Weight(const MatrixView& view);  // [n, m], alpha multiplied in
Eigen::VectorXd Bias(const MatrixView& view);  // [m], beta multiplied in; zeros where there is none

// What may take the place of a product's W and b.
struct Refit {
  Eigen::MatrixXd weight;
  Eigen::VectorXd bias;
};

// Replaces W and b by others of the same shape: in the constants' own layout and type; constants
// that other nodes read are copied first. Where there was no bias one is added (an Add, Gemm's C,
// Conv's B) unless `bias` is all zeros. `view` is of `model` and out of date afterwards; its output
// keeps its name. InternalError on other shapes or numbers that are not finite.
void SetWeight(Model& model, const MatrixView& view, const Eigen::MatrixXd& weight,
               const Eigen::VectorXd& bias);

// The same product in `copy`, a copy of the view's model in which weights may have changed and
// biases may have been added since.
MatrixView SameMatrix(const Model& copy, const MatrixView& view);

// A tensor of one of the four types from numbers, rounded to it.
Tensor ToTensor(DType dtype, Dims dims, std::span<const double> values);

}  // namespace sparsefuse

#endif  // SPARSEFUSE_PASSES_STATISTICS_MATRIX_H_

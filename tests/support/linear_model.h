// Layers of tests/kernels/linear_case.h as nodes of a model.

#ifndef SPARSEFUSE_TESTS_SUPPORT_LINEAR_MODEL_H_
#define SPARSEFUSE_TESTS_SUPPORT_LINEAR_MODEL_H_

#include "onnx_io/model.h"
#include "passes/lower/linear.h"
#include "tests/kernels/linear_case.h"

namespace sparsefuse::test {

QuantizedWeight WeightOf(const LinearLayer& layer);

// Input x [rows, the layer's inputs] of this type; nothing else.
Model EmptyModel(const LinearLayer& layer, DType dtype = DType::kFloat);

// Appends the layer to x, its output to the graph's outputs, and returns its node.
Node* AppendLinear(Model& model, const LinearLayer& layer,
                   Activation activation = Activation::kNone);

}  // namespace sparsefuse::test

#endif  // SPARSEFUSE_TESTS_SUPPORT_LINEAR_MODEL_H_

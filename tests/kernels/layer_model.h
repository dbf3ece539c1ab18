// A layer as a model of one node for ONNX Runtime.

#ifndef SPARSEFUSE_TESTS_KERNELS_LAYER_MODEL_H_
#define SPARSEFUSE_TESTS_KERNELS_LAYER_MODEL_H_

#include <cstdint>
#include <string>
#include <vector>

#include "tests/kernels/linear_case.h"
#include "tests/kernels/node_model.h"

namespace sparsefuse::test {

// The operator's name, the dimensions of its constants and their values. Tests of models that lie
// change one thing; values are cut or filled up with zeros to the dimensions.
struct LayerParts {
  explicit LayerParts(const LinearLayer& layer, Activation activation = Activation::kNone);
  NodeModel Model(onnx::TensorProto::DataType type = onnx::TensorProto::FLOAT) const;

  std::string op;
  std::vector<int64_t> weight_dims, scale_dims, bias_dims, smooth_dims, gate_dims, quad_dims,
      group_ptr_dims;
  LinearLayer layer;
};

}  // namespace sparsefuse::test

#endif  // SPARSEFUSE_TESTS_KERNELS_LAYER_MODEL_H_

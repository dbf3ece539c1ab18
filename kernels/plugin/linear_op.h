// The linear operators of the domain sparsefuse, version 1, for ONNX Runtime's CPU provider. What
// they compute: kernels/linear/linear.h. Inputs and attributes: docs/formats.md.
//
// Nothing is taken on trust: attributes, types, exact sizes and lists of blocks are checked when
// the kernel is made, and at every run whatever may have changed since.

#ifndef SPARSEFUSE_KERNELS_PLUGIN_LINEAR_OP_H_
#define SPARSEFUSE_KERNELS_PLUGIN_LINEAR_OP_H_

#include <onnxruntime_c_api.h>

#include <array>
#include <cstdint>

#include "kernels/linear/linear.h"

namespace sparsefuse::plugin {

// One of the family: (QuantizedLinear | BlockSparseLinear)(8 | 4 | Nested1 | Nested4)(activation).
struct LinearVariant {
  Encoding encoding = Encoding::kInt8;
  bool sparse = false;
  Activation activation = Activation::kNone;
};

// One object for each variant and element type of the activations, float32 and float16: ONNX
// Runtime merges ops of one name. Must outlive the sessions that use it; does not move.
struct LinearOp : OrtCustomOp {
  LinearOp(const OrtApi& ort, const LinearVariant& kind,
           ONNXTensorElementDataType activations) noexcept;
  LinearOp(const LinearOp&) = delete;
  LinearOp& operator=(const LinearOp&) = delete;

  const OrtApi& api;
  LinearVariant variant;
  ONNXTensorElementDataType type;
  std::array<char, 40> name;
};

// Since the library was loaded, over all sessions.
struct GatedRows {
  int64_t rows, easy;
};
GatedRows CountedGatedRows() noexcept;

}  // namespace sparsefuse::plugin

#endif  // SPARSEFUSE_KERNELS_PLUGIN_LINEAR_OP_H_

// The operator sparsefuse.QuantizedLinear8, version 1, for ONNX Runtime's CPU provider. What it
// computes: kernels/linear/linear.h. Inputs and attributes: docs/formats.md.
//
// Nothing is taken on trust: attributes, types and exact sizes are checked when the kernel is made,
// and at every run whatever may have changed since.

#ifndef SPARSEFUSE_KERNELS_PLUGIN_QUANTIZED_LINEAR_H_
#define SPARSEFUSE_KERNELS_PLUGIN_QUANTIZED_LINEAR_H_

#include <onnxruntime_c_api.h>

namespace sparsefuse::plugin {

// One object for each element type of the activations, float32 and float16: ONNX Runtime merges ops
// of one name. Must outlive the sessions that use it.
struct QuantizedLinearOp : OrtCustomOp {
  QuantizedLinearOp(const OrtApi& ort, ONNXTensorElementDataType activations) noexcept;

  const OrtApi& api;
  ONNXTensorElementDataType type;
};

}  // namespace sparsefuse::plugin

#endif  // SPARSEFUSE_KERNELS_PLUGIN_QUANTIZED_LINEAR_H_

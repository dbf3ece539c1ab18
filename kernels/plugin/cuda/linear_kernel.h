// The linear operators for ONNX Runtime's CUDA provider. X, Y, weight, scale_code and bias are in
// the provider's memory; what must be looked at on the host comes there and is copied to the device
// when the kernel is made, so all inputs but X must be initializers.
//
// A run uses the provider's stream and arena, waits for nothing and reads nothing back, so that a
// graph can capture it.

#ifndef SPARSEFUSE_KERNELS_PLUGIN_CUDA_LINEAR_KERNEL_H_
#define SPARSEFUSE_KERNELS_PLUGIN_CUDA_LINEAR_KERNEL_H_

#include "kernels/plugin/linear_op.h"

namespace sparsefuse::plugin {

extern const LinearProvider kCudaLinear;

}  // namespace sparsefuse::plugin

#endif  // SPARSEFUSE_KERNELS_PLUGIN_CUDA_LINEAR_KERNEL_H_

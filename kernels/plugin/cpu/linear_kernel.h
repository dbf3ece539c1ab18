// The linear operators for ONNX Runtime's CPU provider. Weights are checked and prepared when the
// kernel is made, or at every run where they are not initializers.

#ifndef SPARSEFUSE_KERNELS_PLUGIN_CPU_LINEAR_KERNEL_H_
#define SPARSEFUSE_KERNELS_PLUGIN_CPU_LINEAR_KERNEL_H_

#include <cstdint>

#include "kernels/plugin/linear_op.h"

namespace sparsefuse::plugin {

extern const LinearProvider kCpuLinear;

// Since the library was loaded, over all sessions.
struct GatedRows {
  int64_t rows = 0, easy = 0;
};
GatedRows CountedGatedRows() noexcept;

}  // namespace sparsefuse::plugin

#endif  // SPARSEFUSE_KERNELS_PLUGIN_CPU_LINEAR_KERNEL_H_

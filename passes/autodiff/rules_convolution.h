// Rules of convolutions and of pooling: operators with a window that moves over the axes from 2 on.

#ifndef SPARSEFUSE_PASSES_AUTODIFF_RULES_CONVOLUTION_H_
#define SPARSEFUSE_PASSES_AUTODIFF_RULES_CONVOLUTION_H_

#include <cstdint>
#include <optional>
#include <vector>

#include "passes/autodiff/vjp.h"

namespace sparsefuse {

void GradConv(Vjp& v);
void GradConvTranspose(Vjp& v);
void GradAveragePool(Vjp& v);
void GradMaxPool(Vjp& v);
void GradGlobalAveragePool(Vjp& v);
void GradGlobalMaxPool(Vjp& v);

// A node's window: one number an axis.
struct Window {
  std::vector<int64_t> kernel, strides, dilations;
  // Padding, int64 [axes]; constants except where auto_pad meets lengths that are unknown.
  Value *before, *after;
  std::optional<std::vector<int64_t>> fixed_pads;  // both, as the attribute has them

  size_t axes() const { return kernel.size(); }
};

// `larger`, `smaller`: what the window moves over and what has one element a position: input and
// output of Conv and of pooling. NoGradient where the kernel's size is unknown.
Window ReadWindow(Vjp& v, std::vector<int64_t> kernel, Value* larger, Value* smaller);

// The adjoint of Conv for its input: Σ over windows of g·kernel, shaped like `larger` in the axes
// from 2 on (g's shape is `smaller`'s there).
Value* SpreadWindows(Vjp& v, const Window& window, Value* g, Value* kernel, int64_t group,
                     Value* larger);

}  // namespace sparsefuse

#endif  // SPARSEFUSE_PASSES_AUTODIFF_RULES_CONVOLUTION_H_

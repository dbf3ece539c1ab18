// How many rows each linear layer meets.

#ifndef SPARSEFUSE_PASSES_QUANTIZE_INPUT_SHAPES_H_
#define SPARSEFUSE_PASSES_QUANTIZE_INPUT_SHAPES_H_

#include <vector>

#include "passes/framework/context.h"
#include "passes/quantize/linear.h"

namespace sparsefuse {

// The shapes of each layer's X when the model runs `batch` samples. Needs context.calibration.
std::vector<Dims> InputShapes(const Model& model, const std::vector<LinearLayer>& layers,
                              int64_t batch, const Context& context);

}  // namespace sparsefuse

#endif  // SPARSEFUSE_PASSES_QUANTIZE_INPUT_SHAPES_H_

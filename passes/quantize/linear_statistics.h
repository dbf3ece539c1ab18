// What the quantiser needs to know of each linear layer's input, from the fit split.

#ifndef SPARSEFUSE_PASSES_QUANTIZE_LINEAR_STATISTICS_H_
#define SPARSEFUSE_PASSES_QUANTIZE_LINEAR_STATISTICS_H_

#include <vector>

#include "passes/framework/context.h"
#include "passes/quantize/linear.h"

namespace sparsefuse {

struct InputStatistics {
  std::vector<float> mean;         // E[x_k], K values
  std::vector<float> mean_square;  // E[x_k²], K values
};

// One entry a layer; the layers' inputs are reduced inside the engine, so that memory stays bounded
// by one batch. Needs context.calibration.
std::vector<InputStatistics> CollectInputStatistics(const Model& model,
                                                    const std::vector<LinearLayer>& layers,
                                                    const Context& context);

// The shapes of each layer's X when the model runs `batch` samples. Needs context.calibration.
std::vector<Dims> InputShapes(const Model& model, const std::vector<LinearLayer>& layers,
                              int64_t batch, const Context& context);

}  // namespace sparsefuse

#endif  // SPARSEFUSE_PASSES_QUANTIZE_LINEAR_STATISTICS_H_

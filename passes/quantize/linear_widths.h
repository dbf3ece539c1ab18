// How wide each linear layer's weight becomes.

#ifndef SPARSEFUSE_PASSES_QUANTIZE_LINEAR_WIDTHS_H_
#define SPARSEFUSE_PASSES_QUANTIZE_LINEAR_WIDTHS_H_

#include <string>
#include <vector>

#include "passes/framework/context.h"
#include "passes/quantize/linear.h"
#include "passes/quantize/weight_search.h"

namespace sparsefuse {

enum class WeightWidth { kInt8, kInt4, kNested, kMixed };

struct WidthOptions {
  WeightWidth weights = WeightWidth::kInt8;
  Encoding nested = Encoding::kNested4;
  double bits = 6;        // kMixed: on average over the weights of these layers
  bool ends_int8 = true;  // the first and the last layers
  int64_t width = 0;      // inputs that share a scale, of int4 (to predict its loss)
};

// The first layers: nothing with weights lies between the graph's inputs and them. The last: no
// other of `layers` lies between them and the outputs.
struct EndLayers {
  std::vector<bool> first, last;
};
EndLayers FindEndLayers(const Model& model, const std::vector<LinearLayer>& layers);

struct LayerWidth {
  Encoding encoding = Encoding::kInt8;
  std::string reason;  // why int8 where the options say otherwise
};

// One a layer. same_as: the first layer with the same weight. stays_int8: tied to an embedding.
// Layers that share a weight agree; where one of them has to be int8 all are.
//
// kMixed: int4, but int8 for those that gain most a byte by it, until the average is reached. What
// a layer loses is the KL(model ‖ model with this layer alone in int4) on the select split
// (relative error of the first output where that holds no answers; of the weights without data).
// Predicted for several layers: the sum.
std::vector<LayerWidth> ChooseWidths(const Model& model, const std::vector<LinearLayer>& layers,
                                     const std::vector<size_t>& same_as,
                                     const std::vector<bool>& stays_int8,
                                     const WidthOptions& options, const Context& context);

// Which of several matrices get 8 bits instead of 4, so that the average over their weights stays
// at or below `bits`: greedily by loss a weight. fixed8: has them already.
std::vector<bool> Promote(const std::vector<double>& losses, const std::vector<int64_t>& weights,
                          const std::vector<bool>& fixed8, double bits);

}  // namespace sparsefuse

#endif  // SPARSEFUSE_PASSES_QUANTIZE_LINEAR_WIDTHS_H_

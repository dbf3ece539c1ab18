// Models in text form whose weights are too many to write.

#ifndef SPARSEFUSE_TESTS_SUPPORT_MODELS_H_
#define SPARSEFUSE_TESTS_SUPPORT_MODELS_H_

#include <string>
#include <utility>
#include <vector>

#include "onnx_io/model.h"

namespace sparsefuse::test {

// A graph in ONNX's text syntax, without a header, as a model of this opset. Its initializers named
// in `weights` get these values: `float[1] w = {0}` is enough in the text.
Model ModelWith(int opset, const std::string& graph,
                const std::vector<std::pair<std::string, Tensor>>& weights);

}  // namespace sparsefuse::test

#endif  // SPARSEFUSE_TESTS_SUPPORT_MODELS_H_

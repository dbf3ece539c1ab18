// The linear layers of a model that GPU kernels run, and what their zero patterns allow there.

#ifndef SPARSEFUSE_PASSES_CUDA_LAYERS_H_
#define SPARSEFUSE_PASSES_CUDA_LAYERS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "kernels/cuda/instance.h"
#include "onnx_io/model.h"

namespace sparsefuse {

struct CudaLayer {
  std::string node;
  LinearShape shape;
  Activation activation = Activation::kNone;
  bool half = false;   // activations are float16
  int64_t groups = 0;  // stored
  cuda::Pattern pattern = cuda::Pattern::kDense;
  int32_t shared_panels = 1;       // most neighbouring panels that store the same inputs: 4, 2 or 1
  std::vector<uint16_t> quad;      // of a sparse layer, as the kernels read them
  std::vector<int32_t> group_ptr;  // likewise

  BlockIndex blocks() const {
    return shape.sparse ? BlockIndex{quad.data(), group_ptr.data()} : BlockIndex{};
  }

  double density() const {  // stored share of the weights
    const int64_t all = shape.panels() * GroupsPerPanel(shape.inputs);
    return static_cast<double>(groups) / static_cast<double>(all);
  }
  // Of weights and lists of blocks.
  int64_t bytes() const {
    return groups * (GroupBytes(shape.encoding) + (shape.sparse ? kGroupQuads * 2 : 0));
  }
};

// In the order of the graph's nodes, those of subgraphs too. UserError E_MODEL on attributes or
// lists that no kernel would accept, E_UNSUPPORTED on weights that are not constant.
std::vector<CudaLayer> FindCudaLayers(const Model& model);

}  // namespace sparsefuse

#endif  // SPARSEFUSE_PASSES_CUDA_LAYERS_H_

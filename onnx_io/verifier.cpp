#include "onnx_io/model.h"

namespace sparsefuse {

void Verify(const Model& model) {
  ForEachGraph(model, [](const Graph& graph) { graph.TopologicalOrder(); });
}

}  // namespace sparsefuse

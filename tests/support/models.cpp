#include "tests/support/models.h"

#include <fmt/format.h>

#include "onnx_io/text.h"

namespace sparsefuse::test {

Model ModelWith(int opset, const std::string& graph,
                const std::vector<std::pair<std::string, Tensor>>& weights) {
  Model model =
      ModelFromText(fmt::format("<ir_version: 8, opset_import: [\"\" : {}]> {}", opset, graph));
  for (const auto& [name, tensor] : weights) {
    model.graph().FindValue(name)->set_initializer(tensor);
  }
  return model;
}

}  // namespace sparsefuse::test

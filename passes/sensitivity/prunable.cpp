#include "passes/sensitivity/prunable.h"

#include <fmt/format.h>

#include <optional>
#include <utility>

namespace sparsefuse {
namespace {

std::optional<Consumer> MakeConsumer(const Module& module, const Node& node, std::string& reason) {
  std::string why;
  const std::optional<MatrixView> matrix = AsMatrix(node, &why);
  if (!matrix) {
    reason = fmt::format("{} is no plain product: {}", node.Describe(), why);
    return std::nullopt;
  }
  const size_t axis = matrix->weight_is_rows ? 1 : 0;
  for (const ModuleAxis& it : module.axes) {
    if (it.tensor != matrix->weight || it.axis != axis) continue;
    Consumer consumer{*matrix, {}, it.unit_of, node.Is("Conv")};
    for (const int64_t unit : it.unit_of) {
      consumer.unit_of.insert(consumer.unit_of.end(), static_cast<size_t>(matrix->kernel), unit);
    }
    return consumer;
  }
  reason = fmt::format("its units were not found in the weight of {}", node.Describe());
  return std::nullopt;
}

}  // namespace

std::vector<Prunable> FindPrunable(const Structure& structure) {
  std::vector<Prunable> result;
  for (const Module& module : structure.modules) {
    Prunable prunable{.module = &module, .reason = module.reason};
    prunable.name = fmt::format("{} {}", module.units, Name(module.kind));
    for (const Node* node : module.consumers) {
      std::optional<Consumer> consumer = MakeConsumer(module, *node, prunable.reason);
      if (!consumer) break;
      prunable.consumers.push_back(std::move(*consumer));
    }
    if (prunable.reason.empty() && module.units < 2) prunable.reason = "a single unit";
    if (prunable.reason.empty() && prunable.consumers.empty()) prunable.reason = "nothing reads it";
    result.push_back(std::move(prunable));
  }
  return result;
}

}  // namespace sparsefuse

#include "passes/cuda/layers.h"

#include <array>
#include <optional>

#include "kernels/cuda/plan.h"
#include "passes/cleanup/known_types.h"
#include "passes/lower/linear_body.h"

namespace sparsefuse {
namespace {

std::optional<LinearOperator> OperatorOf(const Node& node) {
  if (node.domain() != kOperatorDomain) return std::nullopt;
  for (const Encoding encoding :
       {Encoding::kInt8, Encoding::kInt4, Encoding::kNested1, Encoding::kNested4}) {
    for (const bool sparse : {false, true}) {
      for (const Activation activation : kActivations) {
        const LinearOperator op = {encoding, sparse, activation};
        if (node.op() == OperatorName(op)) return op;
      }
    }
  }
  return std::nullopt;
}

[[noreturn]] void Wrong(const Node& node, std::string what) {
  throw UserError(ErrorCode::kModel, std::move(what)).At(node.Describe());
}

int64_t Bounded(const Node& node, const char* name, int64_t least, int64_t most) {
  const int64_t value = node.GetInt(name, least - 1);
  if (value < least || value > most) {
    Wrong(node, fmt::format("attribute {} must be there and lie in {} to {}", name, least, most));
  }
  return value;
}

std::vector<int64_t> Ints(const Node& node, size_t input, const char* what, DType dtype) {
  const Tensor* tensor = node.constant_input(input);
  if (!tensor) {
    throw UserError(ErrorCode::kUnsupported,
                    fmt::format("input {} is no constant, so its kernels cannot be chosen", what),
                    "make it an initializer")
        .At(node.Describe());
  }
  if (tensor->dtype() != dtype) Wrong(node, fmt::format("input {} has another type", what));
  return tensor->ToInts();
}

// Whether layers are of float16, as the graph says it of their inputs or outputs; else as it
// follows from the operators. Where that is unknown, too, and wrong, the compiled kernels are not
// found and the library's run.
class ElementTypes {
 public:
  explicit ElementTypes(const Model& model) : model_(model) {}

  bool IsHalf(const Node& node) {
    for (const Value* value : {node.input(0), node.output(0)}) {
      if (value && value->type()) return value->type()->dtype == DType::kFloat16;
    }
    if (!node.input(0)) return false;
    if (!inferred_) inferred_.emplace(model_);
    return inferred_->dtype(*node.input(0)) == DType::kFloat16;
  }

 private:
  const Model& model_;
  std::optional<KnownTypes> inferred_;  // when a graph says nothing
};

// What the node says of its inputs' zeros; see quantize.
float ZeroInputs(const Node& node) {
  const float share = node.GetFloat("zero_inputs", 0);
  if (!(share >= 0 && share <= 1)) Wrong(node, "attribute zero_inputs must lie in 0 to 1");
  return share;
}

void ReadPattern(const Node& node, CudaLayer& layer) {
  const size_t quad_input = IsNested(layer.shape.encoding) ? 6 : 5;
  if (layer.shape.sparse) {
    const std::vector<int64_t> quads = Ints(node, quad_input, "quad", DType::kUint16);
    const std::vector<int64_t> ends = Ints(node, quad_input + 1, "group_ptr", DType::kInt32);
    layer.quad.assign(quads.begin(), quads.end());
    layer.group_ptr.assign(ends.begin(), ends.end());
    const auto panels = static_cast<size_t>(layer.shape.panels());
    if (layer.group_ptr.size() != panels + 1 || layer.quad.size() % kGroupQuads != 0) {
      Wrong(node, fmt::format("group_ptr needs {} numbers, quad whole groups of {}", panels + 1,
                              kGroupQuads));
    }
    layer.groups = static_cast<int64_t>(layer.quad.size()) / kGroupQuads;
    if (layer.quad.empty()) layer.quad.push_back(0);  // an empty list may have no address
    std::array<char, 128> wrong{};
    if (!CheckBlocks(layer.blocks(), layer.shape.inputs, layer.shape.outputs, layer.groups,
                     wrong)) {
      Wrong(node, fmt::format("blocks: {}", wrong.data()));
    }
  } else {
    layer.groups = layer.shape.panels() * GroupsPerPanel(layer.shape.inputs);
  }
  const cuda::Plan plan = cuda::MakePlan(layer.shape, layer.blocks(), 1);
  layer.shared_panels = plan.shared_panels;
  layer.pattern = cuda::PatternOf(layer.shape, plan);
}

}  // namespace

std::vector<CudaLayer> FindCudaLayers(const Model& model) {
  std::vector<CudaLayer> layers;
  ElementTypes types(model);
  ForEachGraph(model.graph(), [&](const Graph& graph) {
    for (const Node* node : graph.Nodes()) {
      const std::optional<LinearOperator> op = OperatorOf(*node);
      if (!op) continue;
      CudaLayer layer = {.node = node->Describe(), .activation = op->activation};
      layer.shape = {.inputs = Bounded(*node, "K", 1, kMaxInputs),
                     .outputs = Bounded(*node, "N", 1, kMaxOutputs),
                     .scale_groups = Bounded(*node, "scale_groups", 0, GroupsPerPanel(kMaxInputs)),
                     .encoding = op->encoding,
                     .sparse = op->sparse,
                     .zero_inputs = ZeroInputs(*node)};
      layer.half = types.IsHalf(*node);
      ReadPattern(*node, layer);
      layers.push_back(std::move(layer));
    }
  });
  return layers;
}

}  // namespace sparsefuse

#include "passes/analysis/inventory.h"

#include <algorithm>
#include <filesystem>
#include <string_view>
#include <unordered_set>
#include <vector>

#include "passes/lower/linear_body.h"

namespace sparsefuse {
namespace {

using std::string_view;

bool OneOf(const Node& node, std::initializer_list<string_view> ops) {
  return std::find(ops.begin(), ops.end(), string_view(node.op())) != ops.end();
}

// Whether the node gives its reader the numbers of this input in another form.
bool PassesOn(const Use& use) {
  if (OneOf(*use.node, {"DequantizeLinear", "Concat"})) return true;  // scales belong to the weight
  return use.index == 0 && OneOf(*use.node, {"Transpose", "Cast", "Identity", "Reshape", "Squeeze",
                                             "Unsqueeze", "Slice", "Pad"});
}

WeightKind KindOfReader(const Node& node, int input) {
  if (node.domain() == kOperatorDomain ||
      OneOf(node, {"MatMul", "Gemm", "MatMulInteger", "QLinearMatMul", "QGemm", "FusedMatMul",
                   "FusedGemm", "MatMulNBits", "DynamicQuantizeMatMul", "MatMulIntegerToFloat"})) {
    return WeightKind::kLinear;
  }
  if (OneOf(node, {"Conv", "ConvTranspose", "ConvInteger", "QLinearConv", "FusedConv"})) {
    return WeightKind::kConvolution;
  }
  if (input == 0 && OneOf(node, {"Gather", "GatherBlockQuantized"})) return WeightKind::kEmbedding;
  return WeightKind::kOther;
}

WeightKind KindOf(const Value& weight, int64_t rank) {
  WeightKind kind = WeightKind::kOther;
  std::unordered_set<const Value*> seen = {&weight};
  std::vector<const Value*> open = {&weight};
  while (!open.empty()) {
    const Value* value = open.back();
    open.pop_back();
    for (const Use& use : value->uses()) {
      if (PassesOn(use)) {
        const Value* next = use.node->output(0);
        if (next && seen.insert(next).second) open.push_back(next);
        continue;
      }
      const WeightKind found = KindOfReader(*use.node, use.index);
      // A vector that Gather picks from is no table of embeddings but a shape or a constant.
      if (found != WeightKind::kEmbedding || rank >= 2) kind = std::min(kind, found);
    }
  }
  return kind;
}

class Count {
 public:
  explicit Count(Inventory& inventory) : inventory_(inventory) {}

  void Add(const Value& value, const Tensor& tensor) {
    if (!tensor.bytes().empty() && !seen_.insert(tensor.bytes().data()).second) return;
    WeightGroup& group = inventory_.weights[static_cast<size_t>(KindOf(value, tensor.rank()))];
    ++group.tensors;
    group.elements += tensor.size();
    group.bytes += tensor.bytes().size();
    const int bits = DTypeBits(tensor.dtype());
    const bool narrow = bits > 0 && bits <= 8 && tensor.dtype() != DType::kBool;
    if (IsFloating(tensor.dtype()) || narrow) inventory_.parameters += tensor.size();
    if (tensor.form == TensorForm::kExternal) inventory_.external_bytes += tensor.bytes().size();
  }

 private:
  Inventory& inventory_;
  std::unordered_set<const std::byte*> seen_;
};

}  // namespace

Inventory TakeInventory(const Model& model) {
  Inventory inventory;
  Count count(inventory);
  ForEachGraph(model, [&](const Graph& graph) {
    inventory.subgraphs += graph.parent() != nullptr;
    for (const Value* value : graph.Initializers()) count.Add(*value, *value->initializer());
    for (const Node* node : graph.Nodes()) {
      ++inventory.nodes;
      ++inventory
            .operators[node->domain().empty() ? node->op() : node->domain() + "." + node->op()];
      const Value* output = node->Is("Constant") ? node->output(0) : nullptr;
      if (output && output->constant()) count.Add(*output, *output->constant());
    }
  });
  return inventory;
}

uint64_t FileBytes(const Model& model, const std::string& path) {
  std::error_code error;
  const uintmax_t size = std::filesystem::file_size(path, error);
  if (error) throw UserError(ErrorCode::kRead, error.message()).InFile(path);
  return size + TakeInventory(model).external_bytes;
}

bool UsesOperatorLibrary(const Model& model) {
  bool uses = false;
  ForEachGraph(model, [&](const Graph& graph) {
    for (const Node* node : graph.Nodes()) uses = uses || node->domain() == kOperatorDomain;
  });
  return uses;
}

}  // namespace sparsefuse

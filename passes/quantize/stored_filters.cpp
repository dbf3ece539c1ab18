#include "passes/quantize/stored_filters.h"

#include <algorithm>

#include "passes/lower/builder.h"

namespace sparsefuse {
namespace {

// What two nodes and two tensors add to a file, about.
constexpr int64_t kNodeBytes = 160;

bool IsRows(const Node& product) { return product.Is("Conv") || product.GetInt("transB", 0) != 0; }

bool IsWorthwhile(const Tensor& weight, int64_t filters) {
  constexpr int64_t kSavedBytes = sizeof(float) - sizeof(int8_t);
  constexpr int64_t kScaleBytes = sizeof(float);
  return kSavedBytes * weight.size() > kScaleBytes * filters + kNodeBytes;
}

bool IsReadOnlyAsWeight(const Value& weight, const std::set<std::string>& keys) {
  return !weight.is_graph_output() &&
         std::all_of(weight.uses().begin(), weight.uses().end(), [&](const Use& use) {
           return use.index == 1 && keys.contains(KeyOf(*use.node));
         });
}

// [M, C, …] for rows, [K, N] for a Gemm's plain weight.
Value* EmitStored(Builder& builder, const Node& product, const QuantizedFilters& filters) {
  const Tensor& weight = *product.constant_input(1);
  const auto count = static_cast<int64_t>(filters.scales.size());
  const std::span<const int8_t> rows(filters.codes);
  const bool is_rows = IsRows(product);
  const std::vector<int8_t> codes =
      is_rows ? ToStorageOrder(rows, count, product.Is("Conv") ? weight.dims()[1] : 1)
              : ToStorageOrder(rows, 1, weight.dims()[0]);
  Dims scale_dims(weight.dims().size(), 1);
  scale_dims[is_rows ? 0 : 1] = count;
  Attributes to_float;
  to_float.emplace_back("to", static_cast<int64_t>(DType::kFloat));
  Value* stored = builder.Constant(Tensor::Of(weight.dims(), codes));
  return builder.Op("Mul", {builder.Op("Cast", {stored}, std::move(to_float)),
                            builder.Constant(Tensor::Of(scale_dims, filters.scales))});
}

void RemoveConstant(Graph& graph, Value* value) {
  if (Node* producer = value->producer()) {
    graph.RemoveNode(producer);
  } else {
    graph.RemoveInitializer(value);
  }
}

}  // namespace

std::set<std::string> StoreFilters(Model& model, const std::set<std::string>& keys,
                                   FilterCache& filters) {
  Graph& graph = model.graph();
  Builder builder(graph);
  std::set<std::string> stored;
  std::set<const Value*> replaced;
  for (Node* node : graph.TopologicalOrder()) {
    if (!keys.contains(KeyOf(*node))) continue;
    Value* weight = node->input(1);
    if (replaced.contains(weight)) {
      stored.insert(KeyOf(*node));
      continue;
    }
    const Tensor* tensor = node->constant_input(1);
    const int64_t count = tensor->dims()[IsRows(*node) ? 0 : 1];
    if (!IsWorthwhile(*tensor, count) || !IsReadOnlyAsWeight(*weight, keys)) continue;
    builder.InsertBefore(node);
    const int64_t channels = node->Is("Conv") ? tensor->dims()[1] : 1;
    Value* real = EmitStored(builder, *node, filters.Get(*node, channels));
    graph.ReplaceUses(weight, real);
    RemoveConstant(graph, weight);
    replaced.insert(real);
    stored.insert(KeyOf(*node));
  }
  return stored;
}

}  // namespace sparsefuse

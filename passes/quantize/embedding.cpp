#include "passes/quantize/embedding.h"

#include <fmt/format.h>

#include <algorithm>

namespace sparsefuse {

std::vector<EmbeddingTable> FindEmbeddings(Model& model, const Context& context, PassStats& stats) {
  std::vector<EmbeddingTable> tables;
  for (Node* node : model.graph().TopologicalOrder()) {
    const Tensor* table = node->Is("Gather") ? node->constant_input(0) : nullptr;
    if (!table || table->dtype() != DType::kFloat || table->rank() != 2) continue;
    if (context.Excluded(*node)) {
      stats.Skip(*node, "excluded");
    } else if (node->GetInt("axis", 0) != 0) {
      stats.Skip(*node, "gathers columns, not rows");
    } else if (table->size() < kMinTableElements) {
      stats.Skip(*node, fmt::format("too small: {} elements, worth it from {}", table->size(),
                                    kMinTableElements));
    } else {
      auto found = std::find_if(tables.begin(), tables.end(), [node](const EmbeddingTable& t) {
        return t.table == node->input(0);
      });
      if (found == tables.end()) found = tables.insert(tables.end(), {node->input(0), {}});
      found->gathers.push_back(node);
    }
  }
  return tables;
}

RowsAndScales StoreTable(Builder& builder, const QuantizedWeight& table) {
  return {builder.Constant(Tensor::Of<int8_t>({table.outputs, table.inputs}, table.codes)),
          builder.Constant(Tensor::Of<float>({table.outputs}, Scales(table)))};
}

void EmitEmbedding(Builder& builder, Node* gather, const RowsAndScales& table) {
  Value* output = gather->output(0);
  Value* ids = gather->input(1);
  builder.InsertBefore(gather);
  Attributes to_float;
  to_float.emplace_back("to", static_cast<int64_t>(DType::kFloat));
  Value* codes = builder.Op("Gather", {table.rows, ids});
  Value* row = builder.Op("Cast", {codes}, std::move(to_float));
  Value* column = builder.Op("Reshape", {table.scales, builder.Ints({-1, 1})});
  Value* scale = builder.Op("Gather", {column, ids});
  builder.OpAs(output, "Mul", {row, scale});
  gather->graph()->RemoveNode(gather);
}

}  // namespace sparsefuse

// Embedding tables as int8 rows with one scale a row: Gather, then dequantise, in standard
// operators.

#ifndef SPARSEFUSE_PASSES_QUANTIZE_EMBEDDING_H_
#define SPARSEFUSE_PASSES_QUANTIZE_EMBEDDING_H_

#include <vector>

#include "passes/framework/pass.h"
#include "passes/lower/linear.h"

namespace sparsefuse {

inline constexpr int64_t kMinTableElements = 1024;  // V·d

struct EmbeddingTable {
  Value* table;                // constant float [V, d]
  std::vector<Node*> gathers;  // that read its rows
};

// The tables of the main graph, in the order of their first Gather. Skipped ones are reported with
// the reason.
std::vector<EmbeddingTable> FindEmbeddings(Model& model, const Context& context, PassStats& stats);

// The Gather reads int8 rows [V, d] and scales [V] instead of its float table.
void EmitEmbedding(Builder& builder, Node* gather, const RowsAndScales& table);

// The table quantised for itself (no linear layer shares it) and stored as int8 [V, d].
RowsAndScales StoreTable(Builder& builder, const QuantizedWeight& table);

}  // namespace sparsefuse

#endif  // SPARSEFUSE_PASSES_QUANTIZE_EMBEDDING_H_

// Layout 1 (kernels/linear/pack.h) unpacked by standard operators that depend on constants alone:
// ONNX Runtime folds them at load.

#ifndef SPARSEFUSE_PASSES_LOWER_LAYOUT1_H_
#define SPARSEFUSE_PASSES_LOWER_LAYOUT1_H_

#include "kernels/linear/pack.h"
#include "passes/lower/builder.h"

namespace sparsefuse {

// A layer's constants. Numbers are int64 [1].
struct Layout1 {
  Value* weights;              // decoded, in the order [groups, 32, 64]
  Value* scale_code;           // uint8 [S, 32]
  Value* scale_base;           // float []
  Value* inputs;               // K
  Value* outputs;              // N
  Value* panels = nullptr;     // OneOutputUnless sets it
  Value* quad = nullptr;       // uint16 [16·groups]; null: dense
  Value* group_ptr = nullptr;  // int32 [panels + 1]
  bool sparse() const { return quad != nullptr; }
};

// Weights in their (8-bit) reading, int8 [groups, 32, …], from what the file stores.
Value* DecodeWeights(Builder& b, Encoding encoding, Value* stored);

// The layer itself where `condition` (int64 [1], 0 or 1) is 1, else a layer of one output, sparse
// ones without quads.
Layout1 OneOutputUnless(Builder& b, const Layout1& layout, Value* condition);

// Dense: int8 [N, K].
Value* DenseRows(Builder& b, const Layout1& layout);
// Sparse: [K, N] with zeros where no quad is stored; int8, or float with the scales multiplied in,
// of which `scale_groups` > 0 groups share a row.
Value* SparseMatrix(Builder& b, const Layout1& layout);
Value* ScaledSparseMatrix(Builder& b, const Layout1& layout, Value* scale_groups);

// float [N], where there is one scale row a panel.
Value* PanelScales(Builder& b, const Layout1& layout);
// float [rows, 1, N], where dense panels have `rows` scale rows each.
Value* DenseScales(Builder& b, const Layout1& layout, Value* rows);

// ⌈number/divisor⌉, number ≥ 0, divisor > 0.
Value* DivideUp(Builder& b, Value* number, Value* divisor);
// Along axis 0.
Value* Concat(Builder& b, std::vector<Value*> parts);

}  // namespace sparsefuse

#endif  // SPARSEFUSE_PASSES_LOWER_LAYOUT1_H_

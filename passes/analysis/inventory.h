// What a model consists of: its weights by the kind of operator that reads them, its operators.

#ifndef SPARSEFUSE_PASSES_ANALYSIS_INVENTORY_H_
#define SPARSEFUSE_PASSES_ANALYSIS_INVENTORY_H_

#include <cstdint>
#include <map>
#include <string>

#include "onnx_io/model.h"

namespace sparsefuse {

enum class WeightKind { kLinear, kConvolution, kEmbedding, kOther, kCount };

struct WeightGroup {
  int64_t tensors = 0;
  int64_t elements = 0;
  uint64_t bytes = 0;
};

struct Inventory {
  WeightGroup weights[static_cast<size_t>(WeightKind::kCount)];
  int64_t parameters = 0;            // elements of floating-point and of 8-bit or narrower weights
  uint64_t external_bytes = 0;       // of the weights above, in files beside the model
  int64_t nodes = 0, subgraphs = 0;  // everywhere; function bodies are no subgraphs
  std::map<std::string, int64_t> operators;  // "MatMul", "com.microsoft.Gelu" → nodes
};

// Initializers and Constant nodes of every graph; bytes that several tensors share count once. A
// tensor that operators of several kinds read counts for the first of them in the order of
// WeightKind; Transpose, DequantizeLinear, Cast and reshapes on the way to the reader do not
// matter.
Inventory TakeInventory(const Model& model);

// Bytes of the files that the model was read from: the .onnx, and what it refers to in files beside
// it. UserError E_READ if `path` has gone.
uint64_t FileBytes(const Model& model, const std::string& path);

// Whether any node, functions included, is one of this tool's operators.
bool UsesOperatorLibrary(const Model& model);

}  // namespace sparsefuse

#endif  // SPARSEFUSE_PASSES_ANALYSIS_INVENTORY_H_

// Linear layers with quantised weights as nodes of a graph: the operators of docs/formats.md, or,
// for dense int8, the same meaning in standard operators.

#ifndef SPARSEFUSE_PASSES_LOWER_LINEAR_H_
#define SPARSEFUSE_PASSES_LOWER_LINEAR_H_

#include <cstdint>
#include <vector>

#include "kernels/linear/activation.h"
#include "kernels/linear/pack.h"
#include "onnx_io/model.h"
#include "passes/lower/builder.h"
#include "passes/lower/linear_body.h"

namespace sparsefuse {

// A quantised weight: w[n,k] ≈ scale·DecodeWeight(codes[n,k]), where the scale is
// scale_base · 2^(code/16) by the code of n's lane in k's scale row.
struct QuantizedWeight {
  int64_t inputs = 0, outputs = 0;  // K, N
  Encoding encoding = Encoding::kInt8;
  std::vector<int8_t> codes;  // [N, K], as pack.h means them
  int64_t scale_groups = 0;   // groups that share one row of scales; 0: one row a panel
  float scale_base = 0;
  std::vector<uint8_t> scale_codes;  // [S, 32], rows in panel order, then group order
  // Which quads are stored (pack.h, BlockIndex); both empty: all of them.
  std::vector<uint16_t> quad;
  std::vector<int32_t> group_ptr;
  std::vector<float> smooth;  // [K], or empty for ones
  std::vector<float> gate;    // of nested weights (kernels/linear/gate.h), or empty: never easy

  bool sparse() const { return !group_ptr.empty(); }
  BlockIndex blocks() const;  // valid as long as the lists
  int64_t groups() const;
};

// scale[n] for every output, of a weight with one scale row a panel.
std::vector<float> Scales(const QuantizedWeight& weight);

// The weight in layout 1, stored once and shared by everything that reads it.
struct StoredWeight {
  Value* packed = nullptr;
  Value* scale_codes = nullptr;
  Value* quad = nullptr;  // of sparse weights
  Value* group_ptr = nullptr;
};
StoredWeight StoreLayout1(Builder& builder, const QuantizedWeight& weight);

// output = activation(X·W + bias) as a node of the operator for this weight, whose function is
// added to the model if it is missing. The node takes over `output`. bias: [N], or empty. The
// model's opset must lie within the body's.
void EmitLinear(Model& model, Builder& builder, Value* x, const StoredWeight& stored,
                const QuantizedWeight& weight, const std::vector<float>& bias,
                Activation activation, Value* output);

// Tells an operator's node which share of its inputs' codes is expected to be 0, in whole
// sixteenths: a hint to kernels that can skip the weights of such inputs.
void SetZeroInputs(Node& node, double share);

// The same meaning in standard operators, for dense int8 with one scale row a panel, no smooth and
// no activation. `rows`: the codes as int8 [N, K] when another node reads them too (tied weights),
// else null and they are stored as [K, N].
void EmitStandardLinear8(Builder& builder, Value* x, Value* rows, const QuantizedWeight& weight,
                         const std::vector<float>& bias, Value* output);

// int8 rows [N, K] and float scales [N] unpacked from layout 1, of the same kind of weight, by
// standard operators, which ONNX Runtime folds to constants at load: the embedding's side of a tied
// weight.
struct RowsAndScales {
  Value* rows;
  Value* scales;
};
RowsAndScales UnpackLayout1(Builder& builder, const StoredWeight& stored,
                            const QuantizedWeight& weight);

}  // namespace sparsefuse

#endif  // SPARSEFUSE_PASSES_LOWER_LINEAR_H_

// int8 linear layers as operators: QuantizedLinear8 of docs/formats.md with its function body, or
// the same meaning in standard operators.

#ifndef SPARSEFUSE_PASSES_LOWER_QUANTIZED_LINEAR_H_
#define SPARSEFUSE_PASSES_LOWER_QUANTIZED_LINEAR_H_

#include <cstdint>
#include <string_view>
#include <vector>

#include "onnx_io/model.h"
#include "passes/lower/builder.h"

namespace sparsefuse {

inline constexpr std::string_view kOperatorDomain = "sparsefuse";
inline constexpr int64_t kOperatorVersion = 1;
inline constexpr int64_t kMinBodyOpset = 18;  // ReduceMax takes its axes as an input
inline constexpr int64_t kMaxBodyOpset = 25;  // tested up to here

// A quantised weight: w[n,k] ≈ scale[n]·codes[n,k], scale[n] = scale_base · 2^(scale_codes[n]/16).
struct QuantizedWeight {
  int64_t inputs = 0, outputs = 0;  // K, N
  std::vector<int8_t> codes;        // [N, K], −127…127
  float scale_base = 0;
  std::vector<uint8_t> scale_codes;  // [N]
};

// The weight in layout 1, stored once and shared by everything that reads it.
struct StoredWeight {
  Value* packed = nullptr;       // int8 [groups, 32, 16, 4]
  Value* scale_codes = nullptr;  // uint8 [panels, 32]
};
StoredWeight StoreLayout1(Builder& builder, const QuantizedWeight& weight);

// Y = QuantizedLinear8(X); adds the operator's function and its domain's import to the model if
// they are missing. Y takes over `output`. The model's opset must lie within the body's.
void EmitQuantizedLinear8(Model& model, Builder& builder, Value* x, const StoredWeight& stored,
                          const QuantizedWeight& weight, const std::vector<float>& bias,
                          Value* output);

// The same meaning in standard operators. `rows`: the codes as int8 [N, K] when another node reads
// them too (tied weights), else null and they are stored as [K, N].
void EmitStandardLinear8(Builder& builder, Value* x, Value* rows, const QuantizedWeight& weight,
                         const std::vector<float>& bias, Value* output);

// int8 rows [N, K] and float scales [N] unpacked from layout 1 by standard operators, which ONNX
// Runtime folds to constants at load: the embedding's side of a tied weight.
struct RowsAndScales {
  Value* rows;
  Value* scales;
};
RowsAndScales UnpackLayout1(Builder& builder, const StoredWeight& stored,
                            const QuantizedWeight& weight);

// scale[n] for every output.
std::vector<float> Scales(const QuantizedWeight& weight);

}  // namespace sparsefuse

#endif  // SPARSEFUSE_PASSES_LOWER_QUANTIZED_LINEAR_H_

// Linear layers with 4-bit weights as ONNX Runtime's own operator, MatMulNBits (com.microsoft).

#ifndef SPARSEFUSE_PASSES_LOWER_MATMUL_NBITS_H_
#define SPARSEFUSE_PASSES_LOWER_MATMUL_NBITS_H_

#include <cstdint>
#include <vector>

#include "onnx_io/model.h"
#include "passes/lower/builder.h"

namespace sparsefuse {

// w[n,k] ≈ scales[n, k / block] · codes[n,k]
struct BlockedWeight {
  int64_t inputs = 0, outputs = 0;  // K, N
  int64_t block = 0;                // inputs that share a scale: a power of two from 16 on
  std::vector<int8_t> codes;        // [N, K], −8 … 7
  std::vector<float> scales;        // [N, ⌈K/block⌉]
};

// output = X·W + bias, activations quantised to int8 by blocks inside the operator. The node that
// comes last takes over `output`. bias: [N], or empty.
void EmitMatMulNBits(Model& model, Builder& builder, Value* x, const BlockedWeight& weight,
                     const std::vector<float>& bias, Value* output);

}  // namespace sparsefuse

#endif  // SPARSEFUSE_PASSES_LOWER_MATMUL_NBITS_H_

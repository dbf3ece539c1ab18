// The meaning of the linear operators of docs/formats.md in standard operators: one model-local
// function for each, valid for opsets kMinBodyOpset … kMaxBodyOpset. ONNX Runtime runs it where our
// library is absent, as onnx's reference evaluator does.
//
// Everything that depends on constants alone is folded at load: unpacked weights, scales, which of
// the two branches scale_groups takes. What is left at run time, for
//   one scale row a panel            one MatMulInteger
//   more, dense                      one batched MatMulInteger, a batch a scale row; sum of floats
//   more, sparse                     one float MatMul with the dequantised matrix: scale rows cover
//                                    other inputs in each panel
// Integers are exact in the first two (where u8 × s8 products of the CPU are). Nested weights are
// read in 8 bits; the gate is ignored.

#ifndef SPARSEFUSE_PASSES_LOWER_LINEAR_BODY_H_
#define SPARSEFUSE_PASSES_LOWER_LINEAR_BODY_H_

#include <cstdint>
#include <string>
#include <string_view>

#include "kernels/linear/activation.h"
#include "kernels/linear/pack.h"
#include "onnx_io/model.h"

namespace sparsefuse {

inline constexpr std::string_view kOperatorDomain = "sparsefuse";
inline constexpr int64_t kOperatorVersion = 1;
inline constexpr int64_t kMinBodyOpset = 18;  // ReduceMax takes its axes as an input
inline constexpr int64_t kMaxBodyOpset = 25;  // tested up to here

// One of the family: (QuantizedLinear | BlockSparseLinear)(8 | 4 | Nested1 | Nested4)(activation).
struct LinearOperator {
  Encoding encoding = Encoding::kInt8;
  bool sparse = false;
  Activation activation = Activation::kNone;
};

std::string OperatorName(const LinearOperator& op);

// Adds the operator's function and its domain's import to the model if they are missing. The
// model's opset must lie within the body's.
void AddLinearFunction(Model& model, const LinearOperator& op);

}  // namespace sparsefuse

#endif  // SPARSEFUSE_PASSES_LOWER_LINEAR_BODY_H_

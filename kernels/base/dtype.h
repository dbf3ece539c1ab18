// Element types of tensors. The numbers are those of onnx.TensorProto.DataType, so that reading and
// writing need no table; kernels use the same enum without knowing ONNX.

#ifndef SPARSEFUSE_KERNELS_BASE_DTYPE_H_
#define SPARSEFUSE_KERNELS_BASE_DTYPE_H_

#include <cstdint>
#include <string_view>

namespace sparsefuse {

enum class DType : int32_t {
  kUndefined = 0,
  kFloat = 1,
  kUint8 = 2,
  kInt8 = 3,
  kUint16 = 4,
  kInt16 = 5,
  kInt32 = 6,
  kInt64 = 7,
  kString = 8,
  kBool = 9,
  kFloat16 = 10,
  kDouble = 11,
  kUint32 = 12,
  kUint64 = 13,
  kComplex64 = 14,
  kComplex128 = 15,
  kBfloat16 = 16,
  kFloat8E4M3FN = 17,
  kFloat8E4M3FNUZ = 18,
  kFloat8E5M2 = 19,
  kFloat8E5M2FNUZ = 20,
  kUint4 = 21,
  kInt4 = 22,
  kFloat4E2M1 = 23,
  kFloat8E8M0 = 24,
  kUint2 = 25,
  kInt2 = 26,
};

// Bits of one element as stored in raw_data; 0 for strings, undefined and unknown numbers. Types
// of fewer than 8 bits are packed, first element in the low bits, the last byte padded.
int DTypeBits(DType dtype) noexcept;

// Lower-case name as in ONNX's text form ("float", "int8", "float8e4m3fn"); "unknown" for others.
std::string_view DTypeName(DType dtype) noexcept;

// float, float16, bfloat16 or double.
bool IsFloating(DType dtype) noexcept;

}  // namespace sparsefuse

#endif  // SPARSEFUSE_KERNELS_BASE_DTYPE_H_

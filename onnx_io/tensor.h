// Tensor: a cheap value that points to immutable bytes. Copying a Tensor shares its bytes, so
// copying a whole Model shares all weights. Nobody writes through a Tensor; a pass makes a new one.

#ifndef SPARSEFUSE_ONNX_IO_TENSOR_H_
#define SPARSEFUSE_ONNX_IO_TENSOR_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "kernels/base/dtype.h"
#include "onnx_io/error.h"

namespace sparsefuse {

using Dims = std::vector<int64_t>;

// Number of elements / bytes of a tensor, by checked arithmetic; nullopt on a negative dimension,
// an overflow of int64, or (bytes) a type without a fixed size. A scalar ([]) has one element.
std::optional<int64_t> ElementCount(std::span<const int64_t> dims) noexcept;
std::optional<int64_t> ByteCount(DType dtype, std::span<const int64_t> dims) noexcept;

// "[2,3,4]"
std::string ToString(std::span<const int64_t> dims);

// Owner of immutable bytes: a mapped file, a heap block aligned to 64 bytes, or bytes moved out of
// a parsed message.
class Storage {
 public:
  virtual ~Storage() = default;
  virtual std::span<const std::byte> bytes() const noexcept = 0;
  // A hint: `part` of bytes() is not needed soon, so it need not stay resident.
  virtual void Forget(std::span<const std::byte> /*part*/) const noexcept {}
};

// Where a tensor's bytes stood in the file that it was read from; kept so that writing gives the
// same form back.
enum class TensorForm {
  kRaw,       // raw_data (also every new tensor)
  kTyped,     // float_data, int32_data, …: decoded to little-endian raw bytes when read
  kExternal,  // an external file, mapped
  kStrings,   // string_data
};

class Tensor {
 public:
  Tensor() = default;

  // A view of `storage` from `offset`; the length follows from dtype and dims.
  // Throws InternalError if it does not fit.
  Tensor(DType dtype, Dims dims, std::shared_ptr<const Storage> storage, size_t offset = 0);

  // Copies `values` (ElementCount(dims) of them) to a new 64-byte aligned block.
  template <typename T>
  static Tensor Of(Dims dims, std::span<const T> values);
  template <typename T>
  static Tensor Of(Dims dims, const std::vector<T>& values) {
    return Of<T>(std::move(dims), std::span<const T>(values));
  }
  template <typename T>
  static Tensor Scalar(T value) {
    return Of<T>({}, std::span<const T>(&value, 1));
  }
  // Any type, from raw little-endian bytes (copied).
  static Tensor FromBytes(DType dtype, Dims dims, std::span<const std::byte> bytes);
  static Tensor OfStrings(Dims dims, std::vector<std::string> values);

  DType dtype() const noexcept { return dtype_; }
  const Dims& dims() const noexcept { return dims_; }
  int64_t rank() const noexcept { return static_cast<int64_t>(dims_.size()); }
  int64_t size() const noexcept { return count_; }  // elements
  std::span<const std::byte> bytes() const noexcept { return bytes_; }
  bool empty_handle() const noexcept { return dtype_ == DType::kUndefined; }
  const std::vector<std::string>& strings() const;  // throws InternalError unless kString
  // A hint: `part` of bytes() is not needed soon. For walks over tensors larger than memory.
  void Forget(std::span<const std::byte> part) const noexcept {
    if (storage_) storage_->Forget(part);
  }

  // The elements; throws InternalError unless T is the type of dtype. Bytes may be unaligned for T
  // only in mapped files; then the result is undefined, so use ToFloats / ToInts for model data.
  template <typename T>
  std::span<const T> data() const;

  // The elements converted: float, float16, bfloat16, double → float; any integer or bool → int64.
  // Throw InternalError for other types.
  std::vector<float> ToFloats() const;
  std::vector<int64_t> ToInts() const;

  // Same bytes, other dims of the same element count.
  Tensor Reshaped(Dims dims) const;

  // Same bytes and storage (not merely equal content).
  bool SharesBytesWith(const Tensor& other) const noexcept {
    return bytes_.data() == other.bytes_.data() && bytes_.size() == other.bytes_.size();
  }

  TensorForm form = TensorForm::kRaw;

 private:
  DType dtype_ = DType::kUndefined;
  Dims dims_;
  int64_t count_ = 0;
  std::span<const std::byte> bytes_;
  std::shared_ptr<const Storage> storage_;
  std::shared_ptr<const std::vector<std::string>> strings_;
};

template <typename T>
struct DTypeOf;
template <>
struct DTypeOf<float> {
  static constexpr DType value = DType::kFloat;
};
template <>
struct DTypeOf<double> {
  static constexpr DType value = DType::kDouble;
};
template <>
struct DTypeOf<int8_t> {
  static constexpr DType value = DType::kInt8;
};
template <>
struct DTypeOf<uint8_t> {
  static constexpr DType value = DType::kUint8;
};
template <>
struct DTypeOf<int16_t> {
  static constexpr DType value = DType::kInt16;
};
template <>
struct DTypeOf<uint16_t> {
  static constexpr DType value = DType::kUint16;
};
template <>
struct DTypeOf<int32_t> {
  static constexpr DType value = DType::kInt32;
};
template <>
struct DTypeOf<uint32_t> {
  static constexpr DType value = DType::kUint32;
};
template <>
struct DTypeOf<int64_t> {
  static constexpr DType value = DType::kInt64;
};
template <>
struct DTypeOf<uint64_t> {
  static constexpr DType value = DType::kUint64;
};
template <>
struct DTypeOf<bool> {
  static constexpr DType value = DType::kBool;
};

template <typename T>
Tensor Tensor::Of(Dims dims, std::span<const T> values) {
  return FromBytes(DTypeOf<T>::value, std::move(dims), std::as_bytes(values));
}

template <typename T>
std::span<const T> Tensor::data() const {
  SF_CHECK(dtype_ == DTypeOf<T>::value, "tensor is {}", DTypeName(dtype_));
  return {reinterpret_cast<const T*>(bytes_.data()), static_cast<size_t>(count_)};
}

}  // namespace sparsefuse

#endif  // SPARSEFUSE_ONNX_IO_TENSOR_H_

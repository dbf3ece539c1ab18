#include "onnx_io/tensor.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <new>

namespace sparsefuse {
namespace {

constexpr std::align_val_t kAlignment{64};

class HeapStorage final : public Storage {
 public:
  explicit HeapStorage(std::span<const std::byte> bytes)
      : data_(
            static_cast<std::byte*>(::operator new(std::max<size_t>(bytes.size(), 1), kAlignment))),
        size_(bytes.size()) {
    if (!bytes.empty()) std::memcpy(data_, bytes.data(), bytes.size());
  }
  ~HeapStorage() override { ::operator delete(data_, kAlignment); }
  HeapStorage(const HeapStorage&) = delete;
  HeapStorage& operator=(const HeapStorage&) = delete;

  std::span<const std::byte> bytes() const noexcept override { return {data_, size_}; }

 private:
  std::byte* data_;
  size_t size_;
};

// Element i of possibly unaligned bytes.
template <typename T>
T Load(std::span<const std::byte> bytes, size_t i) {
  T value;
  std::memcpy(&value, bytes.data() + i * sizeof(T), sizeof(T));
  return value;
}

template <typename From, typename To>
void Convert(std::span<const std::byte> bytes, std::vector<To>& out) {
  for (size_t i = 0; i < out.size(); ++i) out[i] = static_cast<To>(Load<From>(bytes, i));
}

// IEEE 754 binary16 → binary32, exact; NaN payloads keep their leading bits.
float HalfToFloat(uint16_t half) {
  const uint32_t sign = (half & 0x8000u) << 16;
  const uint32_t magnitude = half & 0x7FFFu;
  if (magnitude >= 0x7C00u) {  // infinity, NaN
    return std::bit_cast<float>(sign | 0x7F800000u | (magnitude & 0x3FFu) << 13);
  }
  // As a float's bits the shifted magnitude is 2⁻¹¹² too small, subnormals included.
  const float value = std::bit_cast<float>(magnitude << 13) * 0x1p112f;
  return std::bit_cast<float>(std::bit_cast<uint32_t>(value) | sign);
}

// `bits` (2 or 4) wide integers, first element in the low bits.
void UnpackInts(std::span<const std::byte> bytes, int bits, bool is_signed,
                std::vector<int64_t>& out) {
  const size_t per_byte = static_cast<size_t>(8 / bits);
  const int64_t mask = (1 << bits) - 1, sign = 1 << (bits - 1);
  for (size_t i = 0; i < out.size(); ++i) {
    const auto byte = static_cast<int64_t>(bytes[i / per_byte]);
    const int64_t value = byte >> (static_cast<int>(i % per_byte) * bits) & mask;
    out[i] = is_signed ? (value ^ sign) - sign : value;
  }
}

}  // namespace

std::optional<int64_t> ElementCount(std::span<const int64_t> dims) noexcept {
  int64_t count = 1;
  bool empty = false;
  for (int64_t dim : dims) {
    if (dim < 0) return std::nullopt;
    if (dim == 0) empty = true;
    // With a zero elsewhere the product is zero, but the other dimensions must still be sane.
    if (dim != 0 && __builtin_mul_overflow(count, dim, &count)) return std::nullopt;
  }
  return empty ? 0 : count;
}

std::optional<int64_t> ByteCount(DType dtype, std::span<const int64_t> dims) noexcept {
  const int bits = DTypeBits(dtype);
  const std::optional<int64_t> count = ElementCount(dims);
  if (bits == 0 || !count) return std::nullopt;
  if (bits < 8) return *count / (8 / bits) + (*count % (8 / bits) != 0);
  int64_t bytes = 0;
  if (__builtin_mul_overflow(*count, int64_t{bits / 8}, &bytes)) return std::nullopt;
  return bytes;
}

std::string ToString(std::span<const int64_t> dims) {
  return fmt::format("[{}]", fmt::join(dims.begin(), dims.end(), ","));
}

Tensor::Tensor(DType dtype, Dims dims, std::shared_ptr<const Storage> storage, size_t offset)
    : dtype_(dtype), dims_(std::move(dims)), storage_(std::move(storage)) {
  const std::optional<int64_t> size = ByteCount(dtype_, dims_);
  SF_CHECK(size, "{}{}", DTypeName(dtype_), ToString(dims_));
  const std::span<const std::byte> all = storage_->bytes();
  const auto length = static_cast<uint64_t>(*size);
  SF_CHECK(length <= all.size() && offset <= all.size() - length, "{} bytes at {} of {}", length,
           offset, all.size());
  count_ = *ElementCount(dims_);
  bytes_ = all.subspan(offset, length);
}

Tensor Tensor::FromBytes(DType dtype, Dims dims, std::span<const std::byte> bytes) {
  const std::optional<int64_t> size = ByteCount(dtype, dims);
  SF_CHECK(size && static_cast<uint64_t>(*size) == bytes.size(), "{}{} from {} bytes",
           DTypeName(dtype), ToString(dims), bytes.size());
  return Tensor(dtype, std::move(dims), std::make_shared<HeapStorage>(bytes));
}

Tensor Tensor::OfStrings(Dims dims, std::vector<std::string> values) {
  const std::optional<int64_t> count = ElementCount(dims);
  SF_CHECK(count && static_cast<uint64_t>(*count) == values.size(), "{} from {} strings",
           ToString(dims), values.size());
  Tensor tensor;
  tensor.form = TensorForm::kStrings;
  tensor.dtype_ = DType::kString;
  tensor.dims_ = std::move(dims);
  tensor.count_ = *count;
  tensor.strings_ = std::make_shared<const std::vector<std::string>>(std::move(values));
  return tensor;
}

const std::vector<std::string>& Tensor::strings() const {
  SF_CHECK(dtype_ == DType::kString, "tensor is {}", DTypeName(dtype_));
  return *strings_;
}

std::vector<float> Tensor::ToFloats() const {
  std::vector<float> out(static_cast<size_t>(count_));
  switch (dtype_) {
    case DType::kFloat:
      if (!out.empty()) std::memcpy(out.data(), bytes_.data(), bytes_.size());
      return out;
    case DType::kDouble:
      Convert<double>(bytes_, out);
      return out;
    case DType::kFloat16:
      for (size_t i = 0; i < out.size(); ++i) out[i] = HalfToFloat(Load<uint16_t>(bytes_, i));
      return out;
    case DType::kBfloat16:
      for (size_t i = 0; i < out.size(); ++i) {
        out[i] = std::bit_cast<float>(static_cast<uint32_t>(Load<uint16_t>(bytes_, i)) << 16);
      }
      return out;
    default:
      throw InternalError(fmt::format("ToFloats of a {} tensor", DTypeName(dtype_)));
  }
}

std::vector<int64_t> Tensor::ToInts() const {
  std::vector<int64_t> out(static_cast<size_t>(count_));
  switch (dtype_) {
    case DType::kInt8:
      Convert<int8_t>(bytes_, out);
      break;
    case DType::kUint8:
      Convert<uint8_t>(bytes_, out);
      break;
    case DType::kInt16:
      Convert<int16_t>(bytes_, out);
      break;
    case DType::kUint16:
      Convert<uint16_t>(bytes_, out);
      break;
    case DType::kInt32:
      Convert<int32_t>(bytes_, out);
      break;
    case DType::kUint32:
      Convert<uint32_t>(bytes_, out);
      break;
    case DType::kInt64:
      Convert<int64_t>(bytes_, out);
      break;
    case DType::kUint64:
      Convert<uint64_t>(bytes_, out);
      break;
    case DType::kInt4:
      UnpackInts(bytes_, 4, true, out);
      break;
    case DType::kUint4:
      UnpackInts(bytes_, 4, false, out);
      break;
    case DType::kInt2:
      UnpackInts(bytes_, 2, true, out);
      break;
    case DType::kUint2:
      UnpackInts(bytes_, 2, false, out);
      break;
    case DType::kBool:
      for (size_t i = 0; i < out.size(); ++i) out[i] = bytes_[i] != std::byte{0};
      break;
    default:
      throw InternalError(fmt::format("ToInts of a {} tensor", DTypeName(dtype_)));
  }
  return out;
}

Tensor Tensor::Reshaped(Dims dims) const {
  SF_CHECK(ElementCount(dims) == count_, "{} as {}", ToString(dims_), ToString(dims));
  Tensor tensor = *this;
  tensor.dims_ = std::move(dims);
  return tensor;
}

}  // namespace sparsefuse

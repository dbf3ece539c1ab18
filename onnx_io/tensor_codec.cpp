#include <charconv>
#include <cstring>
#include <limits>
#include <utility>

#include "onnx_io/codec.h"

namespace sparsefuse {
namespace {

constexpr int kMaxRank = 64;
constexpr uint64_t kMaxShellBytes = 64ull << 20;
constexpr int64_t kMaxDenseBytes = int64_t{1} << 31;

// Bytes moved out of a parsed message.
class StringStorage final : public Storage {
 public:
  explicit StringStorage(std::string bytes) : bytes_(std::move(bytes)) {}
  std::span<const std::byte> bytes() const noexcept override {
    return std::as_bytes(std::span<const char>(bytes_));
  }

 private:
  std::string bytes_;
};

UserError TensorError(std::string what, std::string hint = {}) {
  return UserError(ErrorCode::kTensor, std::move(what), std::move(hint));
}

// --- Typed fields
// -----------------------------------------------------------------------------------

// Which repeated field holds a type's elements when raw_data does not.
enum class Field { kNone, kFloat, kInt32, kInt64, kDouble, kUint64, kString };

struct FieldUse {
  Field field;
  int bytes;                  // raw little-endian bytes that one entry of the field stands for
  int64_t low = 0, high = 0;  // legal values in an int32 or uint64 field
};

FieldUse FieldOf(DType dtype) {
  switch (dtype) {
    case DType::kFloat:
    case DType::kComplex64:
      return {Field::kFloat, 4};
    case DType::kDouble:
    case DType::kComplex128:
      return {Field::kDouble, 8};
    case DType::kInt64:
      return {Field::kInt64, 8};
    case DType::kUint64:
      return {Field::kUint64, 8, 0, -1};
    case DType::kUint32:
      return {Field::kUint64, 4, 0, std::numeric_limits<uint32_t>::max()};
    case DType::kInt32:
      return {Field::kInt32, 4, INT32_MIN, INT32_MAX};
    case DType::kInt16:
      return {Field::kInt32, 2, INT16_MIN, INT16_MAX};
    case DType::kUint16:
    case DType::kFloat16:
    case DType::kBfloat16:
      return {Field::kInt32, 2, 0, UINT16_MAX};
    case DType::kInt8:
      return {Field::kInt32, 1, INT8_MIN, INT8_MAX};
    case DType::kBool:
      return {Field::kInt32, 1, 0, 1};
    case DType::kString:
      return {Field::kString, 0};
    case DType::kUndefined:
      return {Field::kNone, 0};
    default:
      return {Field::kInt32, 1, 0, UINT8_MAX};  // uint8, 8-bit floats, packed small types
  }
}

int FieldSize(const onnx::TensorProto& proto, Field field) {
  switch (field) {
    case Field::kFloat:
      return proto.float_data_size();
    case Field::kInt32:
      return proto.int32_data_size();
    case Field::kInt64:
      return proto.int64_data_size();
    case Field::kDouble:
      return proto.double_data_size();
    case Field::kUint64:
      return proto.uint64_data_size();
    case Field::kString:
      return proto.string_data_size();
    case Field::kNone:
      return 0;
  }
  return 0;
}

constexpr std::pair<Field, const char*> kFields[] = {
    {Field::kFloat, "float_data"},   {Field::kInt32, "int32_data"},
    {Field::kInt64, "int64_data"},   {Field::kDouble, "double_data"},
    {Field::kUint64, "uint64_data"}, {Field::kString, "string_data"}};

const char* FieldName(Field field) {
  for (const auto& [candidate, name] : kFields) {
    if (candidate == field) return name;
  }
  return "nothing";
}

// Copies the low `use.bytes` bytes of each value (this host is little-endian, like the format).
template <typename Values>
std::string Narrow(const Values& values, const FieldUse& use) {
  std::string out(static_cast<size_t>(values.size()) * static_cast<size_t>(use.bytes), '\0');
  char* to = out.data();
  int index = 0;
  for (const auto value : values) {
    if constexpr (std::is_integral_v<std::remove_cvref_t<decltype(value)>>) {
      const bool bounded = use.low != 0 || use.high > 0;
      const bool fits = !bounded || (std::cmp_greater_equal(value, use.low) &&
                                     std::cmp_less_equal(value, use.high));
      if (!fits) {
        throw TensorError(fmt::format("{}[{}] = {} is outside {} … {}", FieldName(use.field), index,
                                      value, use.low, use.high));
      }
    }
    std::memcpy(to, &value, static_cast<size_t>(use.bytes));
    to += use.bytes;
    ++index;
  }
  return out;
}

std::string TypedBytes(const onnx::TensorProto& proto, const FieldUse& use) {
  switch (use.field) {
    case Field::kFloat:
      return Narrow(proto.float_data(), use);
    case Field::kInt32:
      return Narrow(proto.int32_data(), use);
    case Field::kInt64:
      return Narrow(proto.int64_data(), use);
    case Field::kDouble:
      return Narrow(proto.double_data(), use);
    case Field::kUint64:
      return Narrow(proto.uint64_data(), use);
    default:
      return {};
  }
}

// Appends the elements of `bytes` to a typed field; sign extension where T is signed.
template <typename T, typename Out>
void Widen(std::span<const std::byte> bytes, Out* out) {
  out->Reserve(static_cast<int>(bytes.size() / sizeof(T)));
  for (size_t at = 0; at < bytes.size(); at += sizeof(T)) {
    T value;
    std::memcpy(&value, bytes.data() + at, sizeof(T));
    out->Add(value);
  }
}

void EncodeTyped(const Tensor& tensor, onnx::TensorProto& proto) {
  const std::span<const std::byte> bytes = tensor.bytes();
  const FieldUse use = FieldOf(tensor.dtype());
  switch (use.field) {
    case Field::kFloat:
      return Widen<float>(bytes, proto.mutable_float_data());
    case Field::kDouble:
      return Widen<double>(bytes, proto.mutable_double_data());
    case Field::kInt64:
      return Widen<int64_t>(bytes, proto.mutable_int64_data());
    case Field::kUint64:
      return use.bytes == 4 ? Widen<uint32_t>(bytes, proto.mutable_uint64_data())
                            : Widen<uint64_t>(bytes, proto.mutable_uint64_data());
    case Field::kInt32:
      if (use.bytes == 4) return Widen<int32_t>(bytes, proto.mutable_int32_data());
      if (use.bytes == 2) {
        return use.low < 0 ? Widen<int16_t>(bytes, proto.mutable_int32_data())
                           : Widen<uint16_t>(bytes, proto.mutable_int32_data());
      }
      return use.low < 0 ? Widen<int8_t>(bytes, proto.mutable_int32_data())
                         : Widen<uint8_t>(bytes, proto.mutable_int32_data());
    case Field::kString:
    case Field::kNone:
      break;
  }
  throw InternalError("a tensor without a typed field");
}

// --- External data
// ----------------------------------------------------------------------------------

// Decimal digits only.
uint64_t ParseSize(const std::string& key, const std::string& text) {
  uint64_t number = 0;
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, number);
  if (error != std::errc() || stop != end || number > INT64_MAX) {
    throw TensorError(
        fmt::format("external data {} \"{}\" is no size in bytes", key, Printable(text)));
  }
  return number;
}

struct ExternalEntry {
  std::string location;
  uint64_t offset = 0;
  std::optional<uint64_t> length;
};

ExternalEntry ParseExternal(const onnx::TensorProto& proto) {
  ExternalEntry entry;
  std::map<std::string, std::string> seen;
  for (const auto& pair : proto.external_data()) {
    if (!seen.emplace(pair.key(), pair.value()).second) {
      throw TensorError(fmt::format("external data has \"{}\" twice", Printable(pair.key())));
    }
    if (pair.key() == "location") {
      entry.location = pair.value();
    } else if (pair.key() == "offset") {
      entry.offset = ParseSize(pair.key(), pair.value());
    } else if (pair.key() == "length") {
      entry.length = ParseSize(pair.key(), pair.value());
    } else if (pair.key() != "checksum") {
      throw TensorError(
          fmt::format("external data has the unknown key \"{}\"", Printable(pair.key())),
          "expected location, offset, length or checksum");
    }
  }
  if (!seen.contains("location")) throw TensorError("external data without a location");
  return entry;
}

Tensor DecodeExternal(const onnx::TensorProto& proto, DType dtype, Dims dims, uint64_t bytes,
                      ExternalFiles& files) {
  const ExternalEntry entry = ParseExternal(proto);
  if (entry.length && *entry.length != bytes) {
    throw TensorError(fmt::format("external data has {} bytes, dims {} of {} need {}",
                                  *entry.length, ToString(dims), DTypeName(dtype), bytes));
  }
  std::shared_ptr<const MappedFile> file = files.Open(entry.location);
  const uint64_t size = file->bytes().size();
  if (bytes > size || entry.offset > size - bytes) {
    throw TensorError(fmt::format("external data at offset {} needs {} bytes, file \"{}\" has {}",
                                  entry.offset, bytes, Printable(entry.location), size),
                      "the file looks truncated");
  }
  Tensor tensor(dtype, std::move(dims), std::move(file), entry.offset);
  tensor.form = TensorForm::kExternal;
  return tensor;
}

// --- Checks
// -----------------------------------------------------------------------------------------

// The payload must be in exactly one place, and that the right one for the type.
void CheckPayload(const onnx::TensorProto& proto, DType dtype) {
  const bool external = proto.data_location() == onnx::TensorProto::EXTERNAL;
  int places = (proto.has_raw_data() ? 1 : 0) + (external ? 1 : 0);
  for (const auto& [field, name] : kFields) {
    if (FieldSize(proto, field) == 0) continue;
    ++places;
    if (field != FieldOf(dtype).field) {
      throw TensorError(fmt::format("{} holds the elements of a {} tensor, expected {} or raw_data",
                                    name, DTypeName(dtype), FieldName(FieldOf(dtype).field)));
    }
  }
  if (places > 1) throw TensorError("holds its elements twice, in different fields");
  if (dtype == DType::kString && (proto.has_raw_data() || external)) {
    throw TensorError("strings must be in string_data");
  }
  if (!external && proto.external_data_size() > 0) {
    throw TensorError("has external data entries, but is not marked as external");
  }
}

void CheckHeader(const onnx::TensorProto& proto) {
  if (proto.has_segment()) {
    throw UserError(ErrorCode::kUnsupported, "is one segment of a tensor, which is not supported");
  }
  if (proto.dims_size() > kMaxRank) {
    throw UserError(ErrorCode::kLimit,
                    fmt::format("has rank {}, the limit is {}", proto.dims_size(), kMaxRank));
  }
  if (proto.data_type() == 0) throw TensorError("has no element type");
  const auto dtype = static_cast<DType>(proto.data_type());
  if (dtype != DType::kString && DTypeBits(dtype) == 0) {
    throw UserError(ErrorCode::kUnsupported,
                    fmt::format("has the unknown element type {}", proto.data_type()));
  }
}

}  // namespace

Tensor DecodeTensor(onnx::TensorProto& proto, ExternalFiles& files) {
  CheckHeader(proto);
  const auto dtype = static_cast<DType>(proto.data_type());
  CheckPayload(proto, dtype);
  Dims dims(proto.dims().begin(), proto.dims().end());
  const std::optional<int64_t> count = ElementCount(dims);
  const std::optional<int64_t> size = dtype == DType::kString ? count : ByteCount(dtype, dims);
  if (!size) {
    throw TensorError(fmt::format("dims {} are negative or too large", ToString(dims)));
  }
  if (dtype == DType::kString) {
    if (proto.string_data_size() != *count) {
      throw TensorError(fmt::format("string_data has {} strings, dims {} need {}",
                                    proto.string_data_size(), ToString(dims), *count));
    }
    std::vector<std::string> strings;
    for (std::string& text : *proto.mutable_string_data()) strings.push_back(std::move(text));
    proto.clear_string_data();
    return Tensor::OfStrings(std::move(dims), std::move(strings));
  }
  const auto bytes = static_cast<uint64_t>(*size);
  if (proto.data_location() == onnx::TensorProto::EXTERNAL) {
    Tensor tensor = DecodeExternal(proto, dtype, std::move(dims), bytes, files);
    proto.clear_external_data();
    proto.clear_data_location();
    return tensor;
  }
  const FieldUse use = FieldOf(dtype);
  const bool raw = proto.has_raw_data();
  const uint64_t found =
      raw ? proto.raw_data().size()
          : static_cast<uint64_t>(FieldSize(proto, use.field)) * static_cast<uint64_t>(use.bytes);
  if (found != bytes) {
    throw TensorError(fmt::format("{} has {} bytes, dims {} of {} need {}",
                                  raw ? "raw_data" : FieldName(use.field), found, ToString(dims),
                                  DTypeName(dtype), bytes),
                      found < bytes ? "the file looks truncated" : "");
  }
  std::string payload = raw ? std::move(*proto.mutable_raw_data()) : TypedBytes(proto, use);
  Tensor tensor(dtype, std::move(dims), std::make_shared<StringStorage>(std::move(payload)));
  tensor.form = raw ? TensorForm::kRaw : TensorForm::kTyped;
  proto.clear_raw_data();
  proto.clear_float_data();
  proto.clear_int32_data();
  proto.clear_int64_data();
  proto.clear_double_data();
  proto.clear_uint64_data();
  return tensor;
}

void EncodeTensor(const Tensor& tensor, std::string_view name, const PlaceTensor& place,
                  onnx::TensorProto& proto) {
  proto.set_data_type(static_cast<int32_t>(tensor.dtype()));
  proto.mutable_dims()->Assign(tensor.dims().begin(), tensor.dims().end());
  if (place && place(tensor, name, proto)) {
    proto.set_data_location(onnx::TensorProto::EXTERNAL);
    return;
  }
  if (tensor.dtype() == DType::kString) {
    for (const std::string& text : tensor.strings()) proto.add_string_data(text);
    return;
  }
  if (tensor.form == TensorForm::kTyped) {
    EncodeTyped(tensor, proto);
  } else {
    proto.set_raw_data(tensor.bytes().data(), tensor.bytes().size());
  }
}

// --- Tensors that stay in shells
// --------------------------------------------------------------------

Tensor ShellTensors::Settle(onnx::TensorProto& proto) {
  if (proto.data_location() != onnx::TensorProto::EXTERNAL) {
    onnx::TensorProto copy = proto;
    return DecodeTensor(copy, files_);
  }
  Tensor tensor = DecodeTensor(proto, files_);
  moved_bytes_ += tensor.bytes().size();
  if (moved_bytes_ > kMaxShellBytes) {
    throw UserError(
        ErrorCode::kLimit,
        fmt::format("more than {} bytes of sparse or training tensors are external data",
                    kMaxShellBytes));
  }
  EncodeTensor(tensor, proto.name(), nullptr, proto);
  return tensor;
}

// Values must lie inside the dense tensor, in ascending order: runtimes trust that.
void ShellTensors::Settle(onnx::SparseTensorProto& sparse) {
  const Dims dims(sparse.dims().begin(), sparse.dims().end());
  const Tensor values = Settle(*sparse.mutable_values());
  const Tensor indices = Settle(*sparse.mutable_indices());
  const std::optional<int64_t> dense = ElementCount(dims);
  if (!dense) throw TensorError(fmt::format("dims {} are negative or too large", ToString(dims)));
  if (values.dtype() != DType::kString &&
      ByteCount(values.dtype(), dims).value_or(INT64_MAX) > kMaxDenseBytes) {
    throw UserError(ErrorCode::kLimit,
                    fmt::format("dims {} of {} need more than {} bytes when dense", ToString(dims),
                                DTypeName(values.dtype()), kMaxDenseBytes));
  }
  const int64_t count = values.size(), rank = std::ssize(dims);
  const bool linear = indices.dims() == Dims{count};
  if (indices.dtype() != DType::kInt64 || values.rank() != 1 ||
      (!linear && indices.dims() != Dims{count, rank})) {
    throw TensorError(fmt::format("indices are {}{}, expected int64[{}] or int64[{},{}]",
                                  DTypeName(indices.dtype()), ToString(indices.dims()), count,
                                  count, rank));
  }
  const std::vector<int64_t> numbers = indices.ToInts();
  int64_t last = -1;
  for (int64_t i = 0; i < count; ++i) {
    int64_t position = linear ? numbers[static_cast<size_t>(i)] : 0;
    bool inside = position >= 0 && position < *dense;
    for (int64_t k = 0; !linear && inside && k < rank; ++k) {
      const int64_t index = numbers[static_cast<size_t>(i * rank + k)];
      const int64_t dim = dims[static_cast<size_t>(k)];
      inside = index >= 0 && index < dim;
      position = position * dim + index;  // stays below *dense while inside
    }
    if (!inside) throw TensorError(fmt::format("index {} lies outside {}", i, ToString(dims)));
    if (position <= last) throw TensorError("indices are not in ascending order");
    last = position;
  }
}

void ShellTensors::Settle(onnx::AttributeProto& attribute) {
  if (attribute.has_t()) Settle(*attribute.mutable_t());
  for (onnx::TensorProto& tensor : *attribute.mutable_tensors()) Settle(tensor);
  if (attribute.has_sparse_tensor()) Settle(*attribute.mutable_sparse_tensor());
  for (onnx::SparseTensorProto& sparse : *attribute.mutable_sparse_tensors()) Settle(sparse);
  if (attribute.has_g()) Settle(*attribute.mutable_g());
  for (onnx::GraphProto& graph : *attribute.mutable_graphs()) Settle(graph);
}

void ShellTensors::Settle(onnx::GraphProto& graph) {
  for (onnx::TensorProto& tensor : *graph.mutable_initializer()) Settle(tensor);
  for (onnx::SparseTensorProto& sparse : *graph.mutable_sparse_initializer()) Settle(sparse);
  for (onnx::NodeProto& node : *graph.mutable_node()) {
    for (onnx::AttributeProto& attribute : *node.mutable_attribute()) Settle(attribute);
  }
}

}  // namespace sparsefuse

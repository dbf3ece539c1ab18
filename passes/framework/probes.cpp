#include "passes/framework/probes.h"

#include <map>

#include "kernels/base/float16.h"
#include "passes/data/random.h"

namespace sparsefuse {
namespace {

constexpr int64_t kMostElements = int64_t{1} << 28;

uint64_t StreamOf(uint64_t seed, std::string_view name) {
  uint64_t stream = seed;
  for (char c : name) stream = RandomAt(stream, static_cast<unsigned char>(c));
  return stream;
}

float UnitValue(uint64_t random) {  // uniform in [−1, 1), 2²⁴ steps
  return static_cast<float>(random >> 40) * 0x1p-23f - 1.0f;
}

template <typename T, typename Value>
Tensor Filled(DType dtype, const Dims& dims, int64_t count, const Value& value) {
  std::vector<T> values(static_cast<size_t>(count));
  for (size_t i = 0; i < values.size(); ++i) values[i] = value(i);
  return Tensor::FromBytes(dtype, dims, std::as_bytes(std::span<const T>(values)));
}

Tensor MakeValues(DType dtype, const Dims& dims, uint64_t stream) {
  const std::optional<int64_t> count = ElementCount(dims);
  if (!count || *count > kMostElements) {
    throw UserError(ErrorCode::kUnsupported,
                    fmt::format("{} elements are too many for a probe", ToString(dims)));
  }
  const auto unit = [&](size_t i) { return UnitValue(RandomAt(stream, i)); };
  const auto bit = [&](size_t i) { return *count == 1 || (RandomAt(stream, i) >> 63) != 0; };
  const auto integers = [&]<typename T>(T) {
    return Filled<T>(dtype, dims, *count, [&](size_t i) { return static_cast<T>(bit(i)); });
  };
  switch (dtype) {
    case DType::kFloat:
      return Filled<float>(dtype, dims, *count, unit);
    case DType::kDouble:
      return Filled<double>(dtype, dims, *count, [&](size_t i) { return double{unit(i)}; });
    case DType::kFloat16:
      return Filled<uint16_t>(dtype, dims, *count,
                              [&](size_t i) { return FloatToFloat16(unit(i)); });
    case DType::kBfloat16:
      return Filled<uint16_t>(dtype, dims, *count,
                              [&](size_t i) { return FloatToBfloat16(unit(i)); });
    case DType::kBool:
    case DType::kUint8:
    case DType::kInt8:
      return integers(uint8_t{});
    case DType::kUint16:
    case DType::kInt16:
      return integers(uint16_t{});
    case DType::kUint32:
    case DType::kInt32:
      return integers(uint32_t{});
    case DType::kUint64:
    case DType::kInt64:
      return integers(uint64_t{});
    default:
      throw UserError(ErrorCode::kUnsupported,
                      fmt::format("no probe can be made of type {}", DTypeName(dtype)));
  }
}

}  // namespace

Feeds MakeProbe(std::span<const Port> inputs, uint64_t seed, const ProbeLengths& lengths) {
  std::map<std::string, int64_t> symbols;
  Feeds feeds;
  for (const Port& port : inputs) {
    Dims dims;
    for (size_t axis = 0; axis < port.type.dims.size(); ++axis) {
      const auto& dim = port.type.dims[axis];
      const int64_t open = axis == 0 ? lengths.first : lengths.other;
      if (const int64_t* number = std::get_if<int64_t>(&dim)) {
        dims.push_back(*number);
      } else {
        const std::string& symbol = std::get<std::string>(dim);
        dims.push_back(symbol.empty() ? open : symbols.emplace(symbol, open).first->second);
      }
    }
    if (!port.type.has_shape) dims = {lengths.first, lengths.other};  // a guess like any other
    try {
      feeds.emplace_back(port.name, MakeValues(port.type.dtype, dims, StreamOf(seed, port.name)));
    } catch (UserError& error) {
      error.At(fmt::format("input \"{}\"", Printable(port.name)));
      throw;
    }
  }
  return feeds;
}

}  // namespace sparsefuse

#include "passes/data/match.h"

#include <utility>
#include <vector>

namespace sparsefuse {
namespace {

using Dim = std::variant<int64_t, std::string>;

std::string DimText(const Dim& dim) {
  if (const int64_t* number = std::get_if<int64_t>(&dim)) return std::to_string(*number);
  const std::string& symbol = std::get<std::string>(dim);
  return symbol.empty() ? "?" : Printable(symbol);
}

std::string DimsText(std::span<const Dim> dims) {
  std::string text = "[";
  for (size_t i = 0; i < dims.size(); ++i) text += (i ? "," : "") + DimText(dims[i]);
  return text + "]";
}

bool Fits(std::span<const int64_t> dims, std::span<const Dim> expected) {
  if (dims.size() != expected.size()) return false;
  for (size_t i = 0; i < dims.size(); ++i) {
    const int64_t* number = std::get_if<int64_t>(&expected[i]);
    if (number && *number != dims[i]) return false;
  }
  return true;
}

std::string_view NumpyName(DType dtype) {
  switch (dtype) {
    case DType::kFloat:
      return "float32";
    case DType::kDouble:
      return "float64";
    default:
      return DTypeName(dtype);
  }
}

bool NumpyHas(DType dtype) {
  switch (dtype) {
    case DType::kBfloat16:
    case DType::kString:
    case DType::kComplex64:
    case DType::kComplex128:
      return false;
    default:
      return DTypeBits(dtype) >= 8 && dtype <= DType::kUint64;
  }
}

std::string InputText(const Value& input) {
  return fmt::format("input \"{}\" is {}", Printable(input.name()), Describe(*input.type()));
}

void CheckType(const Value& input, DType dtype) {
  const std::optional<ValueType>& type = input.type();
  if (!type || type->dtype == DType::kUndefined || type->dtype == DType::kString) {
    throw UserError(
        ErrorCode::kUnsupported,
        fmt::format("the model's input \"{}\" is no tensor of numbers", Printable(input.name())));
  }
  if (type->dtype == dtype) return;
  throw UserError(
      ErrorCode::kData, fmt::format("is {}, but {}", DTypeName(dtype), InputText(input)),
      NumpyHas(type->dtype)
          ? fmt::format("convert it: array.astype(\"{}\")", NumpyName(type->dtype))
          : fmt::format("NumPy has no {}: give test_data_set_* folders", DTypeName(type->dtype)));
}

[[noreturn]] void FailShape(const Value& input, std::span<const int64_t> dims,
                            std::vector<Dim> expected) {
  throw UserError(ErrorCode::kData,
                  fmt::format("is {}, but {}: expected {}", ToString(dims), InputText(input),
                              DimsText(expected)),
                  dims.size() != expected.size()
                      ? fmt::format("it has {} axes instead of {}", dims.size(), expected.size())
                      : "");
}

}  // namespace

ArrayForm MatchArray(const Value& input, DType dtype, std::span<const int64_t> dims) {
  CheckType(input, dtype);
  const ValueType& type = *input.type();
  if (!type.has_shape && !dims.empty()) return ArrayForm::kRows;
  if (!dims.empty()) {
    const std::span<const Dim> expected = type.dims;
    if (Fits(dims.subspan(1), expected)) return ArrayForm::kWhole;
    if (!expected.empty() && Fits(dims.subspan(1), expected.subspan(1))) return ArrayForm::kRows;
  }
  std::vector<Dim> expected = type.dims;
  if (expected.empty()) {
    expected.emplace_back("samples");
  } else {
    expected[0] = "samples";
  }
  FailShape(input, dims, std::move(expected));
}

void MatchWhole(const Value& input, DType dtype, std::span<const int64_t> dims) {
  CheckType(input, dtype);
  const ValueType& type = *input.type();
  if (type.has_shape && !Fits(dims, type.dims)) FailShape(input, dims, type.dims);
}

int64_t FixedFirstAxis(const Value& input) {
  const std::optional<ValueType>& type = input.type();
  if (!type || !type->has_shape || type->dims.empty()) return 0;
  const int64_t* number = std::get_if<int64_t>(&type->dims[0]);
  return number ? *number : 0;
}

std::string Describe(const ValueType& type) {
  return fmt::format("{} {}", DTypeName(type.dtype), type.has_shape ? DimsText(type.dims) : "[…]");
}

}  // namespace sparsefuse

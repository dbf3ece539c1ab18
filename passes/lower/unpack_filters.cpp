#include "passes/lower/unpack_filters.h"

#include <algorithm>
#include <string>
#include <vector>

#include "passes/lower/linear_body.h"

namespace sparsefuse {
namespace {

constexpr int64_t kHalfBlock = 16;
constexpr int64_t kFunctionsIrVersion = 8;  // the first with model-local functions

void AddFunction(Model& model) {
  if (model.FindFunction(kOperatorDomain, kUnpackFilters)) return;
  Function* function =
      model.AddFunction(std::string(kOperatorDomain), std::string(kUnpackFilters),
                        {"packed", "multipliers", "dims"}, {}, {{"", model.opset()}});
  Graph& body = *function->body;
  Builder b(body, Builder::Constants::kNodes);
  Value* bytes = b.Cast(body.FindValue("packed"), DType::kFloat);
  Value* high = b.Op("Floor", {b.Op("Div", {bytes, b.Float(16)})});
  Value* low = b.Op("Sub", {bytes, b.Op("Mul", {high, b.Float(16)})});
  Value* nibbles =
      b.Op("Sub", {b.Op("Concat", {low, high}, AttributeList("axis", int64_t{1})), b.Float(8)});
  Value* blocks = b.Op("Mul", {nibbles, b.Cast(body.FindValue("multipliers"), DType::kFloat)});
  Value* dims = body.FindValue("dims");
  Value* count = b.Op("Slice", {dims, b.Ints({0}), b.Ints({1})});
  Value* rows =
      b.Op("Reshape",
           {blocks, b.Op("Concat", {count, b.Ints({-1})}, AttributeList("axis", int64_t{0}))});
  Value* length =
      b.Op("Div", {b.Op("ReduceProd", {dims}, AttributeList("keepdims", int64_t{1})), count});
  Value* own = b.Op("Slice", {rows, b.Ints({0}), length, b.Ints({1})});
  body.AddGraphOutput(b.Cast(b.Op("Reshape", {own, dims}), DType::kInt8));
  model.opset_imports[std::string(kOperatorDomain)] = kOperatorVersion;
  model.ir_version = std::max(model.ir_version, kFunctionsIrVersion);
}

}  // namespace

Value* UnpackedFilters(Builder& builder, Model& model, std::span<const int8_t> nibbles,
                       std::span<const uint8_t> multipliers, const Dims& dims) {
  const int64_t count = dims[0], length = static_cast<int64_t>(nibbles.size()) / count;
  const int64_t blocks = static_cast<int64_t>(multipliers.size()) / count;
  std::vector<uint8_t> packed(static_cast<size_t>(count * blocks * kHalfBlock));
  const auto nibble = [&](int64_t filter, int64_t k) {
    const int value = k < length ? nibbles[static_cast<size_t>(filter * length + k)] : 0;
    return static_cast<uint8_t>(value + 8);
  };
  for (int64_t row = 0; row < count * blocks; ++row) {
    const int64_t filter = row / blocks, first = row % blocks * 2 * kHalfBlock;
    for (int64_t i = 0; i < kHalfBlock; ++i) {
      packed[static_cast<size_t>(row * kHalfBlock + i)] = static_cast<uint8_t>(
          nibble(filter, first + i) | nibble(filter, first + kHalfBlock + i) << 4);
    }
  }
  AddFunction(model);
  return builder.Op(
      std::string(kUnpackFilters),
      {builder.Constant(Tensor::Of({count * blocks, kHalfBlock}, packed)),
       builder.Constant(Tensor::Of({count * blocks, 1}, multipliers)), builder.Ints(dims)},
      {}, std::string(kOperatorDomain));
}

}  // namespace sparsefuse

#include "passes/lower/matmul_nbits.h"

#include <span>
#include <string>
#include <utility>

namespace sparsefuse {
namespace {

constexpr int kZero = 8;  // codes are stored unsigned
constexpr int64_t kInt8Activations = 4;

// uint8 [N, blocks, block/2], even inputs in low nibbles, padded with zeros.
Tensor PackedCodes(const BlockedWeight& weight) {
  const int64_t blocks = (weight.inputs + weight.block - 1) / weight.block;
  const int64_t row_bytes = blocks * weight.block / 2;
  std::vector<uint8_t> packed(static_cast<size_t>(weight.outputs * row_bytes), kZero | kZero << 4);
  for (int64_t n = 0; n < weight.outputs; ++n) {
    for (int64_t k = 0; k < weight.inputs; ++k) {
      const int code = weight.codes[static_cast<size_t>(n * weight.inputs + k)] + kZero;
      uint8_t& byte = packed[static_cast<size_t>(n * row_bytes + k / 2)];
      byte = static_cast<uint8_t>(k % 2 == 0 ? (byte & 0xf0) | code : (byte & 0x0f) | code << 4);
    }
  }
  return Tensor::Of<uint8_t>({weight.outputs, blocks, weight.block / 2}, packed);
}

}  // namespace

void EmitMatMulNBits(Model& model, Builder& builder, Value* x, const BlockedWeight& weight,
                     const std::vector<float>& bias, Value* output) {
  const std::string domain = "com.microsoft";
  model.opset_imports.emplace(domain, 1);
  std::vector<Value*> inputs = {x, builder.Constant(PackedCodes(weight)),
                                builder.Constant(Tensor::Of<float>(
                                    {static_cast<int64_t>(weight.scales.size())}, weight.scales))};
  Attributes attributes =
      AttributeList("K", weight.inputs, "N", weight.outputs, "bits", 4, "block_size", weight.block,
                    "accuracy_level", kInt8Activations);
  if (bias.empty()) {
    builder.OpAs(output, "MatMulNBits", std::move(inputs), std::move(attributes), domain);
    return;
  }
  Value* product = builder.Op("MatMulNBits", std::move(inputs), std::move(attributes), domain);
  builder.OpAs(output, "Add",
               {product, builder.Constant(Tensor::Of<float>({weight.outputs}, bias))});
}

}  // namespace sparsefuse

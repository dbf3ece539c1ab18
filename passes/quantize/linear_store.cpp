#include "passes/quantize/linear_store.h"

#include <algorithm>

#include "passes/quantize/linear_weights.h"

namespace sparsefuse {
namespace {

// Lists the quads that hold a code other than 0.
void LeaveOutZeroBlocks(QuantizedWeight& weight) {
  const std::vector<bool> zero =
      ZeroBlocks(std::span<const int8_t>(weight.codes), weight.inputs, weight.outputs);
  const int64_t quads = QuadCount(weight.inputs);
  weight.group_ptr = {0};
  for (int64_t p = 0; p < PanelCount(weight.outputs); ++p) {
    for (int64_t q = 0; q < quads; ++q) {
      if (!zero[static_cast<size_t>(p * quads + q)])
        weight.quad.push_back(static_cast<uint16_t>(q));
    }
    while (weight.quad.size() % kGroupQuads != 0) {
      weight.quad.push_back(static_cast<uint16_t>(quads));
    }
    weight.group_ptr.push_back(static_cast<int32_t>(weight.quad.size() / kGroupQuads));
  }
}

BlockedWeight Blocked(const CodedWeight& coded, const LinearLayer& layer) {
  BlockedWeight blocked{.inputs = layer.inputs,
                        .outputs = layer.outputs,
                        .block = coded.scales.width,
                        .codes = coded.codes,
                        .scales = {}};
  for (const uint8_t code : coded.scales.codes) {
    blocked.scales.push_back(DecodeScale(coded.scales.base, code));
  }
  return blocked;
}

}  // namespace

double StoredDensity(const std::vector<bool>& zero_blocks, int64_t inputs, int64_t outputs) {
  const int64_t quads = QuadCount(inputs), panels = PanelCount(outputs);
  int64_t stored = 0;
  for (int64_t p = 0; p < panels; ++p) {
    const auto first = zero_blocks.begin() + p * quads;
    const int64_t kept = std::count(first, first + quads, false);
    stored += (kept + kGroupQuads - 1) / kGroupQuads * kGroupQuads;
  }
  return static_cast<double>(stored) / static_cast<double>(panels * quads);
}

StoredLinear StoreLinear(Model& model, Builder& builder, const LinearLayer& layer,
                         const QuantizedLayer& quantized, const LinearChoice& choice, bool tied) {
  const CodedWeight& coded = quantized.coded;
  StoredLinear stored;
  StoredBytes& bytes = stored.bytes;
  bytes.parameters = layer.inputs * layer.outputs;
  if (choice.form == LinearForm::kStandard && coded.encoding == Encoding::kInt4) {
    stored.blocked = Blocked(coded, layer);
    const auto blocks = static_cast<int64_t>(stored.blocked.scales.size());
    bytes.weights = blocks * coded.scales.width / 2;
    bytes.scales = blocks * static_cast<int64_t>(sizeof(float));
    return stored;
  }
  QuantizedWeight& weight = stored.weight;
  weight = ToOperatorWeight(coded, layer.inputs, layer.outputs);
  weight.smooth = quantized.smooth;
  weight.gate = quantized.gate.gate;
  if (choice.sparse) {
    LeaveOutZeroBlocks(weight);
    stored.stored_quads = static_cast<double>(weight.quad.size()) /
                          static_cast<double>(PanelCount(layer.outputs) * QuadCount(layer.inputs));
  }
  const bool custom = choice.form == LinearForm::kCustom;
  if (custom) {
    stored.layout1 = StoreLayout1(builder, weight);
    bytes.weights = weight.groups() * GroupBytes(weight.encoding);
    bytes.scales = static_cast<int64_t>(weight.scale_codes.size());
    bytes.index = static_cast<int64_t>(weight.quad.size() * sizeof(uint16_t) +
                                       weight.group_ptr.size() * sizeof(int32_t));
  } else {
    bytes.weights = bytes.parameters;
    bytes.scales = layer.outputs * static_cast<int64_t>(sizeof(float));
  }
  if (!tied) return stored;
  builder.InsertBefore(model.graph().Nodes().front());
  stored.unpacked =
      custom ? UnpackLayout1(builder, stored.layout1, weight) : StoreTable(builder, weight);
  return stored;
}

}  // namespace sparsefuse

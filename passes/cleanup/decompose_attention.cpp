// com.microsoft's attention with as many key and value heads as query heads:
//   Attention            Q, K, V = split(X W + b)
//   MultiHeadAttention   Q, K, V are inputs, each with a part of the bias
// Masked keys get mask_filter_value added to their scores, so that a row without any other key
// still weighs all of them; keys behind a row's own position (unidirectional) get the lowest score.

#include <fmt/format.h>

#include <cmath>
#include <utility>

#include "passes/cleanup/decompose_scores.h"

namespace sparsefuse {
namespace {

constexpr float kMaskFilter = -10000;  // default of mask_filter_value

float Scale(const Node& node, int64_t width) {
  const float scale = node.GetFloat("scale", 0);
  return scale != 0 ? scale : static_cast<float>(1 / std::sqrt(static_cast<double>(width)));
}

struct Masks {
  Padding padding;
  size_t mask, bias;             // inputs
  Value* past_length = nullptr;  // int64 []
};

// What both operators do once they have queries, and keys and values including those of the past.
Value* EmitMasked(const FusedNode& fused, Emitter& emitter, AttentionParts parts,
                  const Masks& masks) {
  const Node& node = fused.node();
  const PaddingForm form = masks.padding.form;
  const bool causal = node.GetInt("unidirectional", 0) != 0;
  Value* key_positions = nullptr;
  if (causal || form == PaddingForm::kLengths || form == PaddingForm::kRanges) {
    key_positions = Positions(emitter, emitter.SizeOf(parts.keys, 2));
  }
  if (fused.Has(masks.bias)) parts.biases.push_back(emitter.input(masks.bias));
  if (form != PaddingForm::kNone) {
    const float filter = node.GetFloat("mask_filter_value", kMaskFilter);
    parts.biases.push_back(
        EmitPadding(emitter, emitter.input(masks.mask), form, key_positions, filter));
  }
  if (causal) {
    Value* rows = masks.past_length
                      ? Positions(emitter, emitter.SizeOf(parts.queries, 2), masks.past_length)
                      : key_positions;
    parts.unseen = Later(emitter, rows, key_positions);
  }
  return EmitScores(emitter, parts);
}

enum Packed : size_t { kX, kWeight, kBias, kMask, kPast, kScoreBias, kPastLength };

// Sizes of queries (and keys) and of values, over all heads.
struct HiddenSizes {
  int64_t qk, v;
};

std::string FindHiddenSizes(const FusedNode& fused, HiddenSizes& sizes) {
  const Node& node = fused.node();
  const std::optional<int64_t> columns = fused.Size(kWeight, 1);
  if (!columns) return "the width of its weight is not known";
  const std::vector<int64_t> given = node.GetInts("qkv_hidden_sizes", {});
  if (given.empty()) {
    sizes = {*columns / 3, *columns / 3};
  } else if (given.size() == 3 && given[0] == given[1]) {
    sizes = {given[0], given[2]};
  } else {
    return "its queries and keys are of different widths";
  }
  const int64_t heads = node.GetInt("num_heads", 0);
  const bool whole = heads > 0 && sizes.qk > 0 && sizes.v > 0 && sizes.qk <= *columns / 2 &&
                     sizes.v == *columns - 2 * sizes.qk && sizes.qk % heads == 0 &&
                     sizes.v % heads == 0;
  return whole ? "" : "its heads do not divide its width";
}

Padding PackedPadding(const FusedNode& fused) {
  return FindPadding(fused, kMask, fused.Has(kPast) ? std::nullopt : std::optional<size_t>(kX));
}

std::string WhyAttentionKept(const FusedNode& fused) {
  const Node& node = fused.node();
  if (node.GetInt("do_rotary", 0)) return "it rotates queries and keys (do_rotary)";
  if (node.GetInt("past_present_share_buffer", 0) || fused.Has(kPastLength)) {
    return "its past and present share a buffer";
  }
  if (!fused.Has(kBias)) return "it has no bias, a form that ONNX Runtime does not run";
  HiddenSizes sizes{};
  std::string reason = FindHiddenSizes(fused, sizes);
  if (reason.empty()) reason = WhyNotFloat(fused, {kX, kWeight, kBias, kPast, kScoreBias});
  return reason.empty() ? PackedPadding(fused).reason : reason;
}

void EmitAttention(const FusedNode& fused, Emitter& emitter) {
  const Node& node = fused.node();
  const int64_t heads = node.GetInt("num_heads", 0);
  HiddenSizes sizes{};
  (void)FindHiddenSizes(fused, sizes);
  Value* product = emitter.Op("MatMul", {emitter.input(kX), emitter.input(kWeight)});
  const std::vector<Value*> qkv = emitter.Split(emitter.Op("Add", {product, emitter.input(kBias)}),
                                                2, {sizes.qk, sizes.qk, sizes.v});
  const int64_t width = sizes.qk / heads;
  AttentionParts parts{.queries = SplitHeads(emitter, qkv[0], heads, width),
                       .keys = SplitHeads(emitter, qkv[1], heads, width),
                       .values = SplitHeads(emitter, qkv[2], heads, sizes.v / heads),
                       .scale = Scale(node, width)};
  Masks masks{PackedPadding(fused), kMask, kScoreBias};
  if (fused.Has(kPast)) {  // [keys and values, batch, heads, past, width]
    Value* past = emitter.input(kPast);
    const auto half = [&](int64_t i) { return emitter.Op("Gather", {past, emitter.Int(i)}); };
    parts.keys = emitter.Concat({half(0), parts.keys}, 2);
    parts.values = emitter.Concat({half(1), parts.values}, 2);
    masks.past_length = emitter.SizeOf(past, 3);
  }
  if (fused.Wants(1)) {
    emitter.Output(1, "Concat",
                   {emitter.Unsqueeze(parts.keys, {0}), emitter.Unsqueeze(parts.values, {0})},
                   AttributeList("axis", int64_t{0}));
  }
  MergeHeads(emitter, EmitMasked(fused, emitter, parts, masks), sizes.v);
}

enum Multi : size_t {
  kQueries,
  kKeys,
  kValues,
  kBiases,
  kKeyMask,
  kAddedScores,
  kPastKeys,
  kPastValues,
  kSharedLength,
  kIndirection
};

Padding MultiHeadPadding(const FusedNode& fused) {
  const bool past = fused.Has(kPastKeys);
  return FindPadding(fused, kKeyMask, past ? std::nullopt : std::optional<size_t>(kKeys));
}

std::string WhyMultiHeadKept(const FusedNode& fused) {
  const Node& node = fused.node();
  if (!fused.Has(kKeys) || !fused.Has(kValues)) return "its queries, keys and values are packed";
  for (const size_t input : {kQueries, kKeys, kValues}) {
    if (fused.Rank(input) != 3) return "its queries, keys and values are not of three axes each";
  }
  if (fused.Has(kSharedLength) || fused.Has(kIndirection)) {
    return "its past and present share a buffer";
  }
  if (fused.Wants(3)) return "its scores are used";
  if (fused.Has(kPastKeys) != fused.Has(kPastValues)) return "it has half a past";
  if (fused.Has(kPastKeys) && !(node.output(1) && node.output(2))) {
    return "it has a past and no present, a form that ONNX Runtime does not run";
  }
  const int64_t heads = node.GetInt("num_heads", 0);
  const std::optional<int64_t> qk = fused.Size(kQueries, 2), v = fused.Size(kValues, 2);
  if (!qk || !v) return "the width of its queries or values is not known";
  if (heads <= 0 || *qk % heads != 0 || *v % heads != 0) return "its heads do not divide its width";
  if (node.GetInt("unidirectional", 0) && !fused.SameSize(kQueries, 1, kKeys, 1)) {
    return "it is unidirectional, and its keys are not known to be as many as its queries";
  }
  std::string reason =
      WhyNotFloat(fused, {kQueries, kKeys, kValues, kBiases, kAddedScores, kPastKeys, kPastValues});
  return reason.empty() ? MultiHeadPadding(fused).reason : reason;
}

void EmitMultiHead(const FusedNode& fused, Emitter& emitter) {
  const Node& node = fused.node();
  const int64_t heads = node.GetInt("num_heads", 0);
  const int64_t qk = *fused.Size(kQueries, 2), v = *fused.Size(kValues, 2);
  std::vector<Value*> inputs = {emitter.input(kQueries), emitter.input(kKeys),
                                emitter.input(kValues)};
  if (fused.Has(kBiases)) {
    const std::vector<Value*> biases = emitter.Split(emitter.input(kBiases), 0, {qk, qk, v});
    for (size_t i = 0; i < inputs.size(); ++i) {
      inputs[i] = emitter.Op("Add", {inputs[i], biases[i]});
    }
  }
  const int64_t width = qk / heads;
  AttentionParts parts{.queries = SplitHeads(emitter, inputs[0], heads, width),
                       .keys = SplitHeads(emitter, inputs[1], heads, width),
                       .values = SplitHeads(emitter, inputs[2], heads, v / heads),
                       .scale = Scale(node, width)};
  Masks masks{MultiHeadPadding(fused), kKeyMask, kAddedScores};
  if (fused.Has(kPastKeys)) {
    masks.past_length = emitter.SizeOf(emitter.input(kPastKeys), 2);
    parts.keys = emitter.Output(1, "Concat", {emitter.input(kPastKeys), parts.keys},
                                AttributeList("axis", int64_t{2}));
    parts.values = emitter.Output(2, "Concat", {emitter.input(kPastValues), parts.values},
                                  AttributeList("axis", int64_t{2}));
  } else {
    if (fused.Wants(1)) emitter.Output(1, "Identity", {parts.keys});
    if (fused.Wants(2)) emitter.Output(2, "Identity", {parts.values});
  }
  MergeHeads(emitter, EmitMasked(fused, emitter, parts, masks), v);
}

}  // namespace

std::span<const DecomposeRule> AttentionRules() {
  static const DecomposeRule rules[] = {
      {"Attention", kContrib, 13, "Softmax", {kX, kWeight}, WhyAttentionKept, EmitAttention},
      {"MultiHeadAttention", kContrib, 13, "Softmax", {kQueries}, WhyMultiHeadKept, EmitMultiHead}};
  return rules;
}

}  // namespace sparsefuse

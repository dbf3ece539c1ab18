#include "passes/cleanup/decompose_scores.h"

#include <limits>

namespace sparsefuse {

Value* EmitScores(Emitter& emitter, const AttentionParts& parts, std::optional<size_t> output) {
  Value* scores =
      emitter.Op("MatMul", {parts.queries, emitter.Transpose(parts.keys, {0, 1, 3, 2})});
  if (parts.scale != 1) scores = emitter.Op("Mul", {scores, emitter.Float(parts.scale)});
  if (parts.softcap > 0) {
    Value* cap = emitter.Float(parts.softcap);
    scores = emitter.Op("Mul", {emitter.Op("Tanh", {emitter.Op("Div", {scores, cap})}), cap});
  }
  for (Value* bias : parts.biases) scores = emitter.Op("Add", {scores, bias});
  if (parts.unseen) {
    Value* lowest = emitter.Float(std::numeric_limits<float>::lowest());
    scores = emitter.Op("Where", {parts.unseen, lowest, scores});
  }
  Value* weights = emitter.Op("Softmax", {scores}, AttributeList("axis", int64_t{-1}));
  if (parts.blind_rows) {
    weights = emitter.Op("Where", {parts.unseen, emitter.Float(0), weights});
  }
  if (output) return emitter.Output(*output, "MatMul", {weights, parts.values});
  return emitter.Op("MatMul", {weights, parts.values});
}

Value* SplitHeads(Emitter& emitter, Value* x, int64_t heads, int64_t width) {
  Value* split = emitter.Op("Reshape", {x, emitter.Ints({0, 0, heads, width})});
  return emitter.Transpose(split, {0, 2, 1, 3});
}

void MergeHeads(Emitter& emitter, Value* x, int64_t size) {
  Value* rows = emitter.Transpose(x, {0, 2, 1, 3});
  emitter.Output(0, "Reshape", {rows, emitter.Ints({0, 0, size})});
}

Value* RepeatHeads(Emitter& emitter, Value* x, const HeadCounts& counts, int64_t width) {
  const int64_t groups = counts.heads / counts.kv_heads;
  if (groups == 1) return x;
  Value* wide =
      emitter.Op("Expand", {emitter.Unsqueeze(x, {2}), emitter.Ints({1, 1, groups, 1, 1})});
  return emitter.Op("Reshape", {wide, emitter.Ints({0, counts.heads, -1, width})});
}

Value* Positions(Emitter& emitter, Value* count, Value* start) {
  if (!start) return emitter.Op("Range", {emitter.Int(0), count, emitter.Int(1)});
  return emitter.Op("Range", {start, emitter.Op("Add", {start, count}), emitter.Int(1)});
}

Value* Later(Emitter& emitter, Value* rows, Value* keys) {
  return emitter.Op("Less", {emitter.Unsqueeze(rows, {1}), keys});
}

Padding FindPadding(const FusedNode& fused, size_t mask, std::optional<size_t> keys) {
  if (!fused.Has(mask)) return {};
  const std::optional<int64_t> rank = fused.Rank(mask);
  if (!rank) return {.reason = "the rank of its mask is not known"};
  if (*rank == 2) {
    const std::optional<int64_t> columns = fused.Size(mask, 1);
    if (columns == 1) return {};
    const bool many = columns || (keys && fused.SameSize(mask, 1, *keys, 1));
    return {.form = many ? PaddingForm::kKeys : PaddingForm::kKeysOrOne};
  }
  if (*rank == 3) return {.form = PaddingForm::kRows};
  if (*rank != 1) return {.reason = "its mask has four axes"};
  if (fused.SameSize(mask, 0, 0, 0)) return {.form = PaddingForm::kLengths};
  const std::optional<int64_t> length = fused.Size(mask, 0), batch = fused.Size(0, 0);
  if (length && batch && *length % 2 == 0 && *length / 2 == *batch)
    return {.form = PaddingForm::kRanges};
  return {.reason = "its mask is a vector that is not known to have an entry for each sample"};
}

Value* EmitPadding(Emitter& emitter, Value* mask, PaddingForm form, Value* key_positions,
                   float filter) {
  Value* counts = nullptr;  // True where a key does
  if (form == PaddingForm::kKeys || form == PaddingForm::kKeysOrOne || form == PaddingForm::kRows) {
    counts = emitter.Op("Greater", {mask, emitter.Int32(0)});
    if (form == PaddingForm::kKeysOrOne) {
      Value* one = emitter.Op("Equal", {emitter.SizeOf(mask, 1), emitter.Int(1)});
      counts = emitter.Op("Or", {counts, one});
    }
  } else if (form == PaddingForm::kLengths) {
    Value* lengths = emitter.Unsqueeze(emitter.Cast(mask, DType::kInt64), {1});
    counts = emitter.Op("Less", {key_positions, lengths});
  } else {
    Value* both =
        emitter.Op("Reshape", {emitter.Cast(mask, DType::kInt64), emitter.Ints({2, -1, 1})});
    Value* ends = emitter.Op("Gather", {both, emitter.Int(0)});
    Value* starts = emitter.Op("Gather", {both, emitter.Int(1)});
    counts = emitter.Op("And", {emitter.Op("Less", {key_positions, ends}),
                                emitter.Op("GreaterOrEqual", {key_positions, starts})});
  }
  Value* added = emitter.Op("Where", {counts, emitter.Float(0), emitter.Float(filter)});
  return form == PaddingForm::kRows ? emitter.Unsqueeze(added, {1})
                                    : emitter.Unsqueeze(added, {1, 2});
}

}  // namespace sparsefuse

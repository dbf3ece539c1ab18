// Attention whose keys and values have fewer heads than its queries:
//   GroupQueryAttention of com.microsoft, for a first prompt: without a cache of the past
//   Attention of ONNX (opset 23)
// Each head of keys and values is repeated for its group of query heads.

#include <cmath>
#include <limits>
#include <utility>

#include "passes/cleanup/decompose_rotary.h"
#include "passes/cleanup/decompose_scores.h"

namespace sparsefuse {
namespace {

constexpr int64_t kFloat32 = 1;  // onnx.TensorProto.DataType
constexpr const char* kExtras = "it has sinks, a quantised cache or normalised queries";

float DefaultScale(int64_t width) {
  return static_cast<float>(1 / std::sqrt(static_cast<double>(width)));
}

bool Divides(const HeadCounts& counts) {
  return counts.heads > 0 && counts.kv_heads > 0 && counts.heads % counts.kv_heads == 0;
}

enum Group : size_t {
  kQuery,
  kKey,
  kValue,
  kPastKey,
  kPastValue,
  kLastKey,  // of each sample the position of its last key
  kTotal,
  kCos,
  kSin,
  kPositionIds,
  kGroupBias,
  kSink,  // and, behind it, scales of a quantised cache and weights of norms
};

HeadCounts GroupHeads(const Node& node) {
  return {node.GetInt("num_heads", 0), node.GetInt("kv_num_heads", 0)};
}

// Of one head; 0: not known.
int64_t GroupWidth(const FusedNode& fused) {
  const HeadCounts counts = GroupHeads(fused.node());
  const std::optional<int64_t> columns = fused.Size(kQuery, 2);
  if (!columns || *columns > std::numeric_limits<int64_t>::max() / 3 || counts.heads > *columns) {
    return 0;
  }
  const int64_t all = counts.heads + (fused.Has(kKey) ? 0 : 2 * counts.kv_heads);
  return *columns % all == 0 ? *columns / all : 0;
}

std::string WhyGroupKept(const FusedNode& fused) {
  const Node& node = fused.node();
  if (fused.Has(kPastKey) || fused.Has(kPastValue)) return "it has a cache of the past";
  for (size_t i = kSink; i < node.inputs().size(); ++i) {
    if (fused.Has(i)) return kExtras;
  }
  if (node.GetInt("smooth_softmax", 0)) return kExtras;
  if (node.GetInt("sliding_window_cache", 0)) return "it has a cache of the past";
  if (node.GetInt("qk_output", 0) || fused.Wants(3)) return "its scores are used";
  if (fused.Has(kKey) != fused.Has(kValue)) return "its keys and values are packed";
  if (fused.Rank(kQuery) != 3 || !Divides(GroupHeads(node)) || GroupWidth(fused) == 0) {
    return "its heads do not divide its width, or that is not known";
  }
  if (node.GetInt("do_rotary", 0)) {
    if (fused.Has(kPositionIds))
      return "it is given positions, of which kernels take the first only";
    const std::optional<int64_t> pairs =
        fused.Has(kCos) && fused.Has(kSin) ? fused.Size(kCos, 1) : std::nullopt;
    if (!pairs || *pairs <= 0 || *pairs > GroupWidth(fused) / 2) {
      return "its cosines do not fit its heads";
    }
  }
  return WhyNotFloat(fused, {kQuery, kKey, kValue, kCos, kSin, kGroupBias});
}

// True where a row does not see a key: behind itself, out of its window, or behind the sample's
// last one.
Value* Unseen(const FusedNode& fused, Emitter& emitter, Value* positions) {
  const Node& node = fused.node();
  Value* last = emitter.Cast(emitter.input(kLastKey), DType::kInt64);
  last = emitter.Op("Reshape", {last, emitter.Ints({-1, 1, 1, 1})});
  Value* unseen = emitter.Op("Less", {last, positions});
  if (node.GetInt("causal", 1) == 0) return unseen;
  unseen = emitter.Op("Or", {unseen, Later(emitter, positions, positions)});
  const int64_t window = node.GetInt("local_window_size", -1);
  if (window <= 0) return unseen;
  Value* first = emitter.Op("Sub", {emitter.Unsqueeze(positions, {1}), emitter.Int(window - 1)});
  return emitter.Op("Or", {unseen, emitter.Op("Less", {positions, first})});
}

void EmitGroup(const FusedNode& fused, Emitter& emitter) {
  const Node& node = fused.node();
  const HeadCounts counts = GroupHeads(node);
  const int64_t width = GroupWidth(fused);
  std::vector<Value*> qkv = {emitter.input(kQuery), emitter.input(kKey), emitter.input(kValue)};
  if (!fused.Has(kKey)) {
    qkv = emitter.Split(emitter.input(kQuery), 2,
                        {counts.heads * width, counts.kv_heads * width, counts.kv_heads * width});
  }
  Value* rows = emitter.SizeOf(qkv[0], 1);
  for (size_t i = 0; i < qkv.size(); ++i) {
    const int64_t heads = i == 0 ? counts.heads : counts.kv_heads;
    qkv[i] = emitter.Op("Reshape", {qkv[i], emitter.Ints({0, 0, heads, width})});
  }
  if (node.GetInt("do_rotary", 0)) {
    Value* end = emitter.Unsqueeze(rows, {0});
    const auto first_rows = [&](size_t table) {
      return emitter.Op("Slice", {emitter.input(table), emitter.Ints({0}), end, emitter.Ints({0})});
    };
    const bool interleaved = node.GetInt("rotary_interleaved", 0) != 0;
    const Rotation rotation{first_rows(kCos), first_rows(kSin), *fused.Size(kCos, 1), width,
                            interleaved};
    for (const size_t i : {size_t{0}, size_t{1}}) {
      qkv[i] = EmitRotation(emitter, qkv[i], rotation, false);
    }
  }
  const std::vector<int64_t> perm = {0, 2, 1, 3};
  Value* keys = emitter.Output(1, "Transpose", {qkv[1]}, AttributeList("perm", perm));
  Value* values = emitter.Output(2, "Transpose", {qkv[2]}, AttributeList("perm", perm));
  const float scale = node.GetFloat("scale", 0);
  AttentionParts parts{.queries = emitter.Transpose(qkv[0], perm),
                       .keys = RepeatHeads(emitter, keys, counts, width),
                       .values = RepeatHeads(emitter, values, counts, width),
                       .scale = scale != 0 ? scale : DefaultScale(width),
                       .softcap = node.GetFloat("softcap", 0)};
  if (fused.Has(kGroupBias)) parts.biases.push_back(emitter.input(kGroupBias));
  parts.unseen = Unseen(fused, emitter, Positions(emitter, rows));
  MergeHeads(emitter, EmitScores(emitter, parts), counts.heads * width);
}

enum Onnx : size_t { kQ, kK, kV, kAttentionMask, kPastK, kPastV, kKeyCounts };

struct OnnxForm {
  HeadCounts counts{};
  int64_t width = 0, value_width = 0;
  bool flat = false;  // three axes: heads and width are one
};

std::string FindOnnxForm(const FusedNode& fused, OnnxForm& form) {
  const Node& node = fused.node();
  const std::optional<int64_t> rank = fused.Rank(kQ);
  const std::optional<int64_t> q = fused.Size(kQ, -1), v = fused.Size(kV, -1);
  if ((rank != 3 && rank != 4) || fused.Rank(kK) != rank || fused.Rank(kV) != rank || !q || !v) {
    return "the shapes of its inputs are not known";
  }
  form.flat = rank == 3;
  if (form.flat) {
    form.counts = {node.GetInt("q_num_heads", 0), node.GetInt("kv_num_heads", 0)};
  } else {
    form.counts = {fused.Size(kQ, 1).value_or(0), fused.Size(kK, 1).value_or(0)};
  }
  if (!Divides(form.counts)) return "its numbers of heads are not known, or do not divide";
  form.width = form.flat ? *q / form.counts.heads : *q;
  form.value_width = form.flat ? *v / form.counts.kv_heads : *v;
  int64_t merged = 0;
  if (__builtin_mul_overflow(form.counts.heads, form.value_width, &merged)) {
    return "its heads do not divide its width";
  }
  const bool whole = !form.flat || (*q % form.counts.heads == 0 && *v % form.counts.kv_heads == 0);
  return whole && form.width > 0 && form.value_width > 0 ? "" : "its heads do not divide its width";
}

std::string WhyOnnxKept(const FusedNode& fused) {
  const Node& node = fused.node();
  if (fused.Has(kKeyCounts)) return "it reads a cache (nonpad_kv_seqlen)";
  if (fused.Wants(3)) return "its scores are used";
  if (fused.Has(kPastK) != fused.Has(kPastV)) return "it has half a past";
  if (node.GetInt("softmax_precision", kFloat32) != kFloat32) {
    return "its softmax has a precision of its own";
  }
  for (const char* window : {"left_window_size", "right_window_size"}) {
    if (node.GetInt(window, -1) >= 0) return "it has a window";
  }
  OnnxForm form;
  std::string reason = FindOnnxForm(fused, form);
  if (!reason.empty()) return reason;
  if (fused.Has(kAttentionMask) && fused.dtype(kAttentionMask) != DType::kBool) {
    reason = WhyNotFloat(fused, {kAttentionMask});
    if (!reason.empty()) return reason;
  }
  return WhyNotFloat(fused, {kQ, kK, kV, kPastK, kPastV});
}

// A mask's lowest numbers, like its falses, are keys that are not seen at all.
void AddOnnxMasks(const FusedNode& fused, Emitter& emitter, AttentionParts& parts) {
  if (fused.Has(kAttentionMask)) {
    Value* mask = emitter.input(kAttentionMask);
    parts.blind_rows = true;
    if (fused.dtype(kAttentionMask) == DType::kBool) {
      parts.unseen = emitter.Op("Not", {mask});
    } else {
      parts.biases.push_back(mask);
      Value* lowest = emitter.Float(std::numeric_limits<float>::lowest());
      parts.unseen = emitter.Op("LessOrEqual", {mask, lowest});
    }
  }
  if (fused.node().GetInt("is_causal", 0) == 0) return;
  Value* past = fused.Has(kPastK) ? emitter.SizeOf(emitter.input(kPastK), 2) : nullptr;
  Value* rows = Positions(emitter, emitter.SizeOf(parts.queries, 2), past);
  Value* later = Later(emitter, rows, Positions(emitter, emitter.SizeOf(parts.keys, 2)));
  parts.unseen = parts.unseen ? emitter.Op("Or", {parts.unseen, later}) : later;
}

void EmitOnnx(const FusedNode& fused, Emitter& emitter) {
  const Node& node = fused.node();
  OnnxForm form;
  (void)FindOnnxForm(fused, form);
  const auto heads = [&](size_t input, int64_t count, int64_t width) {
    Value* x = emitter.input(input);
    return form.flat ? SplitHeads(emitter, x, count, width) : x;
  };
  Value* keys = heads(kK, form.counts.kv_heads, form.width);
  Value* values = heads(kV, form.counts.kv_heads, form.value_width);
  if (fused.Has(kPastK)) {
    const auto with_past = [&](size_t output, size_t past, Value* x) {
      return emitter.Output(output, "Concat", {emitter.input(past), x},
                            AttributeList("axis", int64_t{2}));
    };
    keys = with_past(1, kPastK, keys);
    values = with_past(2, kPastV, values);
  } else {
    if (fused.Wants(1)) emitter.Output(1, "Identity", {keys});
    if (fused.Wants(2)) emitter.Output(2, "Identity", {values});
  }
  AttentionParts parts{.queries = heads(kQ, form.counts.heads, form.width),
                       .keys = RepeatHeads(emitter, keys, form.counts, form.width),
                       .values = RepeatHeads(emitter, values, form.counts, form.value_width),
                       .scale = node.GetFloat("scale", DefaultScale(form.width)),
                       .softcap = node.GetFloat("softcap", 0)};
  AddOnnxMasks(fused, emitter, parts);
  if (form.flat) {
    MergeHeads(emitter, EmitScores(emitter, parts), form.counts.heads * form.value_width);
  } else {
    EmitScores(emitter, parts, 0);
  }
}

}  // namespace

std::span<const DecomposeRule> GroupedRules() {
  static const DecomposeRule rules[] = {
      {"GroupQueryAttention", kContrib, 13, "Softmax", {kQuery, kLastKey}, WhyGroupKept, EmitGroup},
      {"Attention", "", 23, "Attention", {kQ, kK, kV}, WhyOnnxKept, EmitOnnx}};
  return rules;
}

}  // namespace sparsefuse

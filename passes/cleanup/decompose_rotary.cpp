// RotaryEmbedding of com.microsoft and, from opset 23 on, of ONNX, which differ in the order of
// their inputs and in how positions are given.

#include "passes/cleanup/decompose_rotary.h"

#include "passes/cleanup/decompose_scores.h"

namespace sparsefuse {
namespace {

// Where the inputs are, and what the rotation's sizes are.
struct Form {
  size_t positions, cos, sin;
  int64_t rank = 0;  // of the input
  int64_t size = 0;  // of its last axis
  int64_t width = 0, pairs = 0;
};

bool IsOnnx(const Node& node) { return node.domain().empty(); }

std::string FindForm(const FusedNode& fused, Form& form) {
  const Node& node = fused.node();
  form = IsOnnx(node) ? Form{3, 1, 2} : Form{1, 2, 3};
  const std::optional<int64_t> rank = fused.Rank(0), last = fused.Size(0, -1);
  const std::optional<int64_t> pairs = fused.Size(form.cos, -1);
  if ((rank != 3 && rank != 4) || !last || !pairs) {
    return "the shapes of its input or cosines are not known";
  }
  if (*pairs <= 0 || *pairs > *last / 2) return "its cosines do not fit its heads";
  form.rank = *rank;
  form.size = *last;
  form.pairs = *pairs;
  const int64_t heads = node.GetInt("num_heads", 0);
  const int64_t rotated = node.GetInt("rotary_embedding_dim", 0);
  if (*rank == 4) {
    form.width = *last;
  } else if (heads > 0) {
    form.width = *last % heads == 0 ? *last / heads : 0;
  } else {
    form.width = 2 * *pairs;
  }
  const int64_t expected = rotated > 0 ? rotated : form.width;
  if (form.width <= 0 || *last % form.width != 0 || expected > form.width || expected % 2 != 0 ||
      expected / 2 != *pairs) {
    return "its cosines do not fit its heads";
  }
  return {};
}

std::string WhyRotaryKept(const FusedNode& fused) {
  const Node& node = fused.node();
  if (node.GetInt("is_packed_batching", 0)) return "its batches are packed";
  if (node.GetFloat("scale", 1) != 1) return "it has a scale";
  Form form{};
  std::string reason = FindForm(fused, form);
  if (!reason.empty()) return reason;
  if (fused.Has(form.positions)) {
    const std::optional<int64_t> rank = fused.Rank(form.positions);
    if (rank != 2 && !(rank == 1 && !IsOnnx(node))) return "the rank of its positions is not known";
  }
  return WhyNotFloat(fused, {0, form.cos, form.sin});
}

void EmitRotary(const FusedNode& fused, Emitter& emitter) {
  Form form{};
  (void)FindForm(fused, form);
  const bool heads_first = form.rank == 4;
  Value* x = emitter.input(0);
  Value* cos = emitter.input(form.cos);
  Value* sin = emitter.input(form.sin);
  if (fused.Has(form.positions)) {
    Value* positions = emitter.input(form.positions);
    if (fused.Rank(form.positions) == 1) {  // of the first row; the others follow
      Value* rows = Positions(emitter, emitter.SizeOf(x, heads_first ? 2 : 1));
      positions = emitter.Op("Add", {rows, positions});
    }
    cos = emitter.Op("Gather", {cos, positions});
    sin = emitter.Op("Gather", {sin, positions});
  }
  const bool interleaved = fused.node().GetInt("interleaved", 0) != 0;
  const Rotation rotation{cos, sin, form.pairs, form.width, interleaved};
  if (heads_first) {
    EmitRotation(emitter, x, rotation, true, 0);
    return;
  }
  const int64_t count = form.size / form.width;
  Value* heads = emitter.Op("Reshape", {x, emitter.Ints({0, 0, count, form.width})});
  Value* rotated = EmitRotation(emitter, heads, rotation, false);
  emitter.Output(0, "Reshape", {rotated, emitter.Ints({0, 0, form.size})});
}

// Neighbours have an axis of their own, of length 1.
struct Pairs {
  Value *first, *second;
  Value* behind;  // what is not rotated; null: nothing
};

Pairs TakePairs(Emitter& emitter, Value* x, const Rotation& rotation) {
  const int64_t rotated = 2 * rotation.pairs, rest = rotation.width - rotated;
  std::vector<int64_t> sizes = {rotation.pairs, rotation.pairs};
  if (rest > 0) sizes.push_back(rest);
  if (!rotation.interleaved) {
    const std::vector<Value*> parts = emitter.Split(x, 3, sizes);
    return {parts[0], parts[1], rest > 0 ? parts[2] : nullptr};
  }
  Value* behind = nullptr;
  if (rest > 0) {
    const std::vector<Value*> parts = emitter.Split(x, 3, {rotated, rest});
    x = parts[0];
    behind = parts[1];
  }
  Value* pairs = emitter.Op("Reshape", {x, emitter.Ints({0, 0, 0, rotation.pairs, 2})});
  const std::vector<Value*> parts = emitter.Split(pairs, 4, {1, 1});
  return {parts[0], parts[1], behind};
}

}  // namespace

Value* EmitRotation(Emitter& emitter, Value* x, const Rotation& rotation, bool heads_first,
                    std::optional<size_t> output) {
  const auto last = [&](const char* op, std::vector<Value*> inputs, Attributes attributes = {}) {
    return output ? emitter.Output(*output, op, std::move(inputs), std::move(attributes))
                  : emitter.Op(op, std::move(inputs), std::move(attributes));
  };
  const auto times = [&](Value* a, Value* b) { return emitter.Op("Mul", {a, b}); };
  const Pairs pairs = TakePairs(emitter, x, rotation);
  // Cosines and sines for every head: a new axis where x has its heads.
  std::vector<int64_t> axes = {heads_first ? -3 : -2};
  if (rotation.interleaved) axes = {heads_first ? -4 : -3, -1};
  Value* cos = emitter.Unsqueeze(rotation.cos, axes);
  Value* sin = emitter.Unsqueeze(rotation.sin, axes);
  Value* real = emitter.Op("Sub", {times(pairs.first, cos), times(pairs.second, sin)});
  Value* imaginary = emitter.Op("Add", {times(pairs.first, sin), times(pairs.second, cos)});
  std::vector<Value*> parts = {real, imaginary};
  if (rotation.interleaved) {
    Value* neighbours = emitter.Concat(std::move(parts), 4);
    Value* shape = emitter.Ints({0, 0, 0, 2 * rotation.pairs});
    if (!pairs.behind) return last("Reshape", {neighbours, shape});
    parts = {emitter.Op("Reshape", {neighbours, shape})};
  }
  if (pairs.behind) parts.push_back(pairs.behind);
  return last("Concat", std::move(parts), AttributeList("axis", int64_t{3}));
}

std::span<const DecomposeRule> RotaryRules() {
  static const DecomposeRule rules[] = {
      {"RotaryEmbedding", kContrib, 13, "Split", {0, 1, 2, 3}, WhyRotaryKept, EmitRotary},
      {"RotaryEmbedding", "", 23, "RotaryEmbedding", {0, 1, 2}, WhyRotaryKept, EmitRotary}};
  return rules;
}

}  // namespace sparsefuse

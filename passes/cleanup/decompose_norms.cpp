// Sums that are normalised, and the embedding layer that looks its summands up:
//   SkipLayerNormalization             y = LayerNormalization(x + skip + bias) · γ + β
//   SkipSimplifiedLayerNormalization   y = z / √(mean z² + ε) · γ,  z = x + skip + bias
//   EmbedLayerNormalization            y = LayerNormalization(words[id] + positions[p] +
//   segments[s])
// The sum is an output too. SimplifiedLayerNormalization and RMSNormalization alone stay: analysis
// and gradients have rules for them.

#include "passes/cleanup/decompose_rules.h"

namespace sparsefuse {
namespace {

constexpr float kEpsilon = 1e-12F;         // the contrib operators' default
constexpr int64_t kRmsNormOpset = 23;      // RMSNormalization
constexpr int64_t kAxesAsInputOpset = 18;  // of ReduceMean
constexpr const char* kStatistics = "its mean or deviation is used, which only training asks for";

float Epsilon(const FusedNode& fused) { return fused.node().GetFloat("epsilon", kEpsilon); }

// The second normalised operand and the bias are for a product's result most often: added to that
// first, they make a linear layer with a bias and a residual connection.
Value* SkipSum(const FusedNode& fused, Emitter& emitter, size_t bias) {
  Value* x = emitter.input(0);
  Value* skip = emitter.input(1);
  if (fused.Has(bias)) {
    const Node* maker = skip->producer();
    Value*& biased = maker && (maker->Is("MatMul") || maker->Is("Gemm")) ? skip : x;
    biased = emitter.Op("Add", {biased, emitter.input(bias)});
  }
  return emitter.Output(3, "Add", {x, skip});
}

void LayerNorm(const FusedNode& fused, Emitter& emitter, Value* x, size_t gamma, size_t beta) {
  std::vector<Value*> inputs = {x, emitter.input(gamma)};
  if (fused.Has(beta)) inputs.push_back(emitter.input(beta));
  emitter.Output(0, "LayerNormalization", std::move(inputs),
                 AttributeList("axis", int64_t{-1}, "epsilon", Epsilon(fused)));
}

std::string WhySkipKept(const FusedNode& fused) {
  if (fused.Wants(1) || fused.Wants(2)) return kStatistics;
  return WhyNotFloat(fused, {0, 1, 2});
}

void EmitSkip(const FusedNode& fused, Emitter& emitter) {
  LayerNorm(fused, emitter, SkipSum(fused, emitter, 4), 2, 3);
}

void EmitSkipRms(const FusedNode& fused, Emitter& emitter) {
  Value* sum = SkipSum(fused, emitter, 3);
  Value* gamma = emitter.input(2);
  if (emitter.opset() >= kRmsNormOpset) {
    emitter.Output(0, "RMSNormalization", {sum, gamma},
                   AttributeList("axis", int64_t{-1}, "epsilon", Epsilon(fused)));
    return;
  }
  // ONNX Runtime recognises this form when it loads the model.
  Value* square = emitter.Op("Pow", {sum, emitter.Float(2)});
  Value* mean =
      emitter.opset() >= kAxesAsInputOpset
          ? emitter.Op("ReduceMean", {square, emitter.Ints({-1})})
          : emitter.Op("ReduceMean", {square}, AttributeList("axes", std::vector<int64_t>{-1}));
  Value* root = emitter.Op("Sqrt", {emitter.Op("Add", {mean, emitter.Float(Epsilon(fused))})});
  emitter.Output(0, "Mul", {emitter.Op("Div", {sum, root}), gamma});
}

enum Embed : size_t {
  kIds,
  kSegmentIds,
  kWords,
  kPositions,
  kSegments,
  kGamma,
  kBeta,
  kWordMask,
  kWordPositionIds
};

std::string WhyEmbedKept(const FusedNode& fused) {
  if (fused.Has(kSegments) != fused.Has(kSegmentIds)) {
    return "it has segment embeddings without segment ids";
  }
  if (fused.Wants(1) && !fused.Has(kWordMask)) return "its mask index is used, and it has no mask";
  return WhyNotFloat(fused, {kWords, kPositions, kSegments, kGamma, kBeta});
}

void EmitEmbed(const FusedNode& fused, Emitter& emitter) {
  const auto lookup = [&](size_t table, size_t ids) {
    return emitter.Op("Gather", {emitter.input(table), emitter.input(ids)});
  };
  Value* words = lookup(kWords, kIds);
  Value* positions = nullptr;
  if (fused.Has(kWordPositionIds)) {
    positions = lookup(kPositions, kWordPositionIds);
  } else {  // the first rows of the table, in order
    Value* length = emitter.Op("Slice", {emitter.Op("Shape", {emitter.input(kIds)}),
                                         emitter.Ints({1}), emitter.Ints({2}), emitter.Ints({0})});
    positions = emitter.Op(
        "Slice", {emitter.input(kPositions), emitter.Ints({0}), length, emitter.Ints({0})});
  }
  Value* sum = nullptr;
  if (fused.Has(kSegments)) {
    sum = emitter.Op("Add", {words, positions});
    sum = emitter.Output(2, "Add", {sum, lookup(kSegments, kSegmentIds)});
  } else {
    sum = emitter.Output(2, "Add", {words, positions});
  }
  if (fused.Wants(1)) {  // how many elements of the mask are one
    Value* is_one = emitter.Op("Equal", {emitter.input(kWordMask), emitter.Int32(1)});
    Value* ones = emitter.Cast(is_one, DType::kInt32);
    emitter.Output(1, "ReduceSum", {ones, emitter.Ints({1})},
                   AttributeList("keepdims", int64_t{0}));
  }
  LayerNorm(fused, emitter, sum, kGamma, kBeta);
}

}  // namespace

std::span<const DecomposeRule> NormRules() {
  static constexpr std::string_view kNorm = "LayerNormalization";
  static const DecomposeRule rules[] = {
      {"SkipLayerNormalization", kContrib, 17, kNorm, {0, 1, 2}, WhySkipKept, EmitSkip},
      {"SkipSimplifiedLayerNormalization", kContrib, 7, "Pow", {0, 1, 2}, WhySkipKept, EmitSkipRms},
      {"EmbedLayerNormalization", kContrib, 17, kNorm, {0, 2, 3, 5, 6}, WhyEmbedKept, EmitEmbed}};
  return rules;
}

}  // namespace sparsefuse

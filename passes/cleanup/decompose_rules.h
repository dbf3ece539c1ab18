// How fused operators are taken apart into ONNX's own: what a rule reads, what it writes with, and
// the table of rules. Their meaning is ONNX Runtime's CPU kernels', which the golden tests compare
// with.

#ifndef SPARSEFUSE_PASSES_CLEANUP_DECOMPOSE_RULES_H_
#define SPARSEFUSE_PASSES_CLEANUP_DECOMPOSE_RULES_H_

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "onnx_io/model.h"
#include "passes/cleanup/known_types.h"
#include "passes/lower/builder.h"

namespace sparsefuse {

// A fused node of the main graph with what the engine infers about its inputs. Of an absent input
// nothing is known.
class FusedNode {
 public:
  FusedNode(const Node& node, KnownTypes& types, int64_t opset)
      : node_(&node), types_(&types), opset_(opset) {}

  const Node& node() const { return *node_; }
  int64_t opset() const { return opset_; }
  bool Has(size_t input) const { return node_->input(input) != nullptr; }
  // Whether something reads this output.
  bool Wants(size_t output) const;
  DType dtype(size_t input) const;  // kUndefined: unknown
  std::optional<int64_t> Rank(size_t input) const;
  // The length of an axis, counted from the end if negative; nullopt: unknown, or open.
  std::optional<int64_t> Size(size_t input, int64_t axis) const;
  // Two axes are known to have one length: the same number, or the same symbol.
  bool SameSize(size_t a, int64_t axis_a, size_t b, int64_t axis_b) const;

 private:
  using Dim = std::variant<int64_t, std::string>;
  std::optional<Dim> Find(size_t input, int64_t axis) const;

  const Node* node_;
  KnownTypes* types_;
  int64_t opset_;
};

// Writes the nodes that replace a fused one, before it.
class Emitter {
 public:
  Emitter(Builder& builder, Node& fused, int64_t opset)
      : builder_(builder), fused_(fused), opset_(opset) {
    builder_.InsertBefore(&fused);
  }

  int64_t opset() const { return opset_; }
  int64_t count() const { return count_; }  // of nodes written
  Value* input(size_t i) const { return fused_.input(i); }

  // Nodes are called as the fused one, with the operator behind: "attention/MatMul".
  Value* Op(std::string op, std::vector<Value*> inputs, Attributes attributes = {});
  // The same for the fused node's output `output`, which is moved there if anything reads it.
  Value* Output(size_t output, std::string op, std::vector<Value*> inputs,
                Attributes attributes = {});

  Value* Float(float value) { return builder_.Float(value); }
  Value* Int(int64_t value) { return builder_.Constant(Tensor::Scalar(value)); }
  Value* Int32(int32_t value) { return builder_.Constant(Tensor::Scalar(value)); }
  Value* Ints(std::vector<int64_t> values) { return builder_.Ints(std::move(values)); }
  Value* Cast(Value* x, DType type) {
    return Op("Cast", {x}, AttributeList("to", static_cast<int64_t>(type)));
  }
  // From opset 13 on.
  Value* Unsqueeze(Value* x, std::vector<int64_t> axes) {
    return Op("Unsqueeze", {x, Ints(std::move(axes))});
  }
  Value* Transpose(Value* x, std::vector<int64_t> perm) {
    return Op("Transpose", {x}, AttributeList("perm", std::move(perm)));
  }
  Value* Concat(std::vector<Value*> parts, int64_t axis) {
    return Op("Concat", std::move(parts), AttributeList("axis", axis));
  }
  // The parts of `x`, as long as `sizes` say. From opset 13 on.
  std::vector<Value*> Split(Value* x, int64_t axis, std::vector<int64_t> sizes);
  // The length of an axis, int64 [].
  Value* SizeOf(Value* x, int64_t axis);

 private:
  Value* Named(Value* output, const std::string& op);

  Builder& builder_;
  Node& fused_;
  int64_t opset_;
  int64_t count_ = 0;
};

inline constexpr std::string_view kContrib = "com.microsoft";  // ONNX Runtime's own operators

struct DecomposeRule {
  std::string_view op;
  std::string_view domain;
  int64_t opset;                 // least version with all that the rule writes …
  std::string_view needed;       // … and the operator that it is needed for
  std::vector<size_t> required;  // inputs
  // Why this form of the operator is left alone; empty: it is not.
  std::string (*why_kept)(const FusedNode&);
  void (*emit)(const FusedNode&, Emitter&);
};

// By family, each in a file decompose_<family>.cpp.
std::span<const DecomposeRule> AttentionRules();   // of equally many heads
std::span<const DecomposeRule> GroupedRules();     // attention with shared keys and values
std::span<const DecomposeRule> RotaryRules();      // rotary position embeddings
std::span<const DecomposeRule> NormRules();        // sums that are normalised
std::span<const DecomposeRule> ActivationRules();  // Gelu and its kin
std::span<const DecomposeRule> ProductRules();     // products with something before or after

const DecomposeRule* FindDecomposeRule(const Node& node);  // null: none

// Why decompose leaves a fused node of the main graph alone; empty: it takes it apart. Nullopt: the
// operator is none of its business.
std::optional<std::string> WhyNotDecomposed(const Node& node, KnownTypes& types, int64_t opset);
// The same for those that cannot see into the node, "run decompose first" where that would help.
std::optional<std::string> DecomposeAdvice(const Node& node, KnownTypes& types, int64_t opset);

// A condition that rules share: the reason why not, or empty.
std::string WhyNotFloat(const FusedNode& fused, std::initializer_list<size_t> inputs);

}  // namespace sparsefuse

#endif  // SPARSEFUSE_PASSES_CLEANUP_DECOMPOSE_RULES_H_

// How operators carry axes from inputs to outputs: one rule for each, collected in two tables.
// Internal to TraceAxes.

#ifndef SPARSEFUSE_PASSES_ANALYSIS_AXIS_RULES_H_
#define SPARSEFUSE_PASSES_ANALYSIS_AXIS_RULES_H_

#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "passes/analysis/axis_flow.h"
#include "passes/analysis/shape_numbers.h"
#include "passes/cleanup/known_types.h"

namespace sparsefuse {

using Axes = std::vector<AxisId>;

class AxisTracer {
 public:
  explicit AxisTracer(const Model& model) : model_(model), types_(model) {}
  AxisFlow Run();

  // --- for the rules ---
  AxisFlow flow;
  ShapeNumberTable numbers;

  AxisAtoms& atoms() { return flow.atoms; }
  int64_t opset() const { return model_.opset(); }
  // Null: rank unknown (or no such input). Constants get leaves of their own on the first question.
  const Axes* Find(const Value* value);
  // Sizes as the engine infers them, kOpen where unknown; nullopt: rank unknown.
  std::optional<std::vector<int64_t>> Sizes(const Value* value);
  void Set(const Value* value, Axes axes) {
    if (value) flow.axes[value] = std::move(axes);
  }
  void FreezeAll(const Value* value, const std::string& reason);
  void FreezeFrom(const Value* value, size_t first_axis, const std::string& reason);
  // The size of an axis has become a value: the axis must stay.
  void FreezeNumbers(const Value* value);
  // Input `use.input` of the node holds the axis's size, which is written anew when the axis
  // shrinks: what else the number was computed from must stay.
  void AddSize(const SizeUse& use);
  // Everything that the node reads is frozen, and its outputs are new frozen axes.
  void Opaque(const Node& node, const std::string& reason);
  // Output i gets frozen axes of the inferred sizes.
  void SetFrozen(const Value* value, const std::string& reason);
  void Record(AxisRole role, const Node& node, AxisId axis) {
    if (axis != AxisAtoms::kOne) flow.events.push_back({role, &node, axis});
  }
  // Right-aligned; axes of size 1 give way. Nullopt: an input's rank is unknown.
  std::optional<Axes> Broadcast(const std::vector<const Value*>& values);
  // The constant integers of an attribute or, in later opsets, of an input. Nullopt: absent or not
  // known (`absent` tells which).
  std::optional<std::vector<int64_t>> Integers(const Node& node, std::string_view attribute,
                                               size_t input, bool* absent = nullptr);

 private:
  void Apply(const Node& node);
  std::string WhyOpaque(const Node& node);
  void FreezeCaptured(const Node& node, const std::string& reason);
  void JoinProducts(const Node& node);

  const Model& model_;
  KnownTypes types_;
  // The products that an activation comes from through everything else, sorted.
  std::unordered_map<const Value*, std::vector<const Node*>> sources_;
};

using AxisRule = void (*)(AxisTracer&, const Node&);
const std::unordered_map<std::string_view, AxisRule>& ComputeRules();  // arithmetic
const std::unordered_map<std::string_view, AxisRule>& ShapeRules();    // moving data

// `axis` counted from the front; nullopt if it is out of range.
std::optional<size_t> FromFront(int64_t axis, size_t rank);

}  // namespace sparsefuse

#endif  // SPARSEFUSE_PASSES_ANALYSIS_AXIS_RULES_H_

// What is known before running about the small tensors that shapes are computed from: constants,
// results of Shape, and arithmetic on them. One element is a number, the size of an axis, or both.

#ifndef SPARSEFUSE_PASSES_ANALYSIS_SHAPE_NUMBERS_H_
#define SPARSEFUSE_PASSES_ANALYSIS_SHAPE_NUMBERS_H_

#include <cstdint>
#include <functional>
#include <optional>
#include <unordered_map>
#include <vector>

#include "onnx_io/model.h"
#include "passes/analysis/axis_atoms.h"

namespace sparsefuse {

struct ShapeNumber {
  std::optional<double> value;  // nullopt: known only when running
  // Exactly the size of this axis, and following it when it shrinks.
  std::optional<AxisId> axis;
  std::vector<AxisId> computed_from;  // axes whose sizes went into it (`axis` among them)

  std::optional<int64_t> integer() const;  // saturated to int64
};

struct ShapeNumbers {
  bool scalar = false;  // else a vector
  std::vector<ShapeNumber> elements;
};

// Longer vectors are no shapes.
inline constexpr int64_t kMaxShapeNumbers = 64;

class ShapeNumberTable {
 public:
  // Null: nothing known. Constants are looked up by themselves.
  const ShapeNumbers* Find(const Value* value);
  // Element 0 of a constant or known scalar or vector of one.
  std::optional<int64_t> Integer(const Value* value);
  // All elements, if all are known.
  std::optional<std::vector<int64_t>> Integers(const Value* value);

  // Learns the node's outputs from its inputs; `axes` of a value, null if unknown, is for Shape.
  void Learn(const Node& node, const std::function<const std::vector<AxisId>*(const Value*)>& axes,
             const AxisAtoms& atoms);

 private:
  std::optional<ShapeNumbers> Evaluate(const Node& node);
  std::optional<ShapeNumbers> Elementwise(const Node& node);
  std::optional<ShapeNumbers> Pick(const Node& node);  // Gather, Slice

  std::unordered_map<const Value*, std::optional<ShapeNumbers>> table_;
};

}  // namespace sparsefuse

#endif  // SPARSEFUSE_PASSES_ANALYSIS_SHAPE_NUMBERS_H_

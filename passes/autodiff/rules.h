// The table of gradient rules: one line an operator, in rules.cpp; the rules by family in
// rules_<family>.cpp.

#ifndef SPARSEFUSE_PASSES_AUTODIFF_RULES_H_
#define SPARSEFUSE_PASSES_AUTODIFF_RULES_H_

#include <string_view>
#include <vector>

#include "passes/autodiff/vjp.h"

namespace sparsefuse {

struct GradientRule {
  std::string_view op;
  std::string_view domain;
  // Null: the output does not change with the inputs, almost everywhere (shapes, comparisons,
  // rounding): the gradient is zero and the sweep ends there.
  void (*apply)(Vjp&);
  bool all_outputs;          // false: a gradient may arrive at output 0 only
  std::string_view formula;  // for docs/autodiff.md
};

// Sorted by family.
const std::vector<GradientRule>& AllGradientRules();
const GradientRule* FindGradientRule(const Node& node);  // null: none, a barrier

}  // namespace sparsefuse

#endif  // SPARSEFUSE_PASSES_AUTODIFF_RULES_H_

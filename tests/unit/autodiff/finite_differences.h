// Gradients judged by what they claim: the change of a random projection of the outputs when a
// tensor moves a little, computed by running the model itself.

#ifndef SPARSEFUSE_TESTS_UNIT_AUTODIFF_FINITE_DIFFERENCES_H_
#define SPARSEFUSE_TESTS_UNIT_AUTODIFF_FINITE_DIFFERENCES_H_

#include <map>
#include <string>
#include <vector>

#include "onnx_io/model.h"
#include "passes/autodiff/gradients.h"
#include "passes/data/dataset.h"

namespace sparsefuse::test {

struct Judgement {
  double step;       // of each element of a random direction in [−1, 1]
  double tolerance;  // of the directional derivative, relative to what a random direction gives
  // For whole models in float: the direction is half random and half the gradient's sign, so that
  // the outputs' rounding, ~1e-6 of their size, matters little; the step is such that the
  // projection moves by `step` of their size or 1/10 or 1/100 of it, whichever fits best: rounding
  // asks for long steps, kinks for short ones.
  bool whole_model = false;
};

// Central differences in double: truncation ~step², rounding ~1e-16/step.
inline constexpr Judgement kDouble = {1e-5, 1e-7};
// In float the outputs' rounding, ~1e-7, is divided by the step. For linear operators a long step
// costs nothing.
inline constexpr Judgement kFloat = {1e-2, 5e-3};
inline constexpr Judgement kLinearFloat = {0.5, 2e-5};
inline constexpr Judgement kModel = {3e-4, 1e-2, true};

struct RuleCase {
  // "$" stands for the element type. Every floating-point graph input is differentiated.
  std::string text;
  Judgement judgement = kDouble;
  std::map<std::string, int64_t> lengths = {};  // of symbolic dims
  double low = -2, high = 2;                    // of the inputs' random values
  std::vector<std::string> fixed = {};          // inputs not to differentiate
  Feeds feeds = {};                             // instead of random values
};

// Requires that the model has a gradient for each input and that all are right.
void CheckRule(const RuleCase& rule_case);

// Requires a right gradient for each of `tensors`. `outputs`: floating-point values that are
// seeded.
void CheckGradientsOf(const Model& model, const Feeds& feeds,
                      const std::vector<std::string>& tensors,
                      const std::vector<std::string>& outputs, const Judgement& judgement);

// Uniform in [low, high); float or double.
Tensor Random(DType type, const Dims& dims, uint64_t seed, double low, double high);

}  // namespace sparsefuse::test

#endif  // SPARSEFUSE_TESTS_UNIT_AUTODIFF_FINITE_DIFFERENCES_H_

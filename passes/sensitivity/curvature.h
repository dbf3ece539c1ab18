// Gradients of everything that can be removed or made coarser, from one backward sweep.

#ifndef SPARSEFUSE_PASSES_SENSITIVITY_CURVATURE_H_
#define SPARSEFUSE_PASSES_SENSITIVITY_CURVATURE_H_

#include <Eigen/Core>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "passes/framework/context.h"
#include "passes/sensitivity/prunable.h"
#include "passes/statistics/matrix.h"
#include "passes/statistics/store.h"

namespace sparsefuse {

// Every product with a constant weight in the main graph, in topological order.
std::vector<MatrixView> FindMatrices(const Model& model);

struct Curvature {
  // One a module, in their order: [samples × draws, units], ∂L/∂(the unit's mask). Empty where no
  // gradient reaches it.
  std::vector<Eigen::MatrixXd> units;
  // By the name of a product's output: Fisher::columns and column_grams of it; missing where no
  // gradient reaches it.
  struct Output {
    Eigen::VectorXd columns;
    Eigen::MatrixXd gram;
  };
  std::map<std::string, Output> outputs;
  // By the name of a tensor, why no gradient reaches it.
  std::map<std::string, std::string> unreachable;
  double answers = 1;  // rows of classes (tokens) a sample
};

// How much errors of each output count: its columns, and a little where gradients never met one.
Eigen::VectorXd Importance(const Curvature::Output& output);

// `modules`: all of FindPrunable, `matrices`: all of FindMatrices, so that the sweep is the same
// whatever a pass wants of it. On the first `samples` of the fit split, two draws each. `store`: of
// this model and this data.
Curvature FindCurvature(const Model& model, std::span<const Prunable> modules,
                        std::span<const MatrixView> matrices, int64_t samples,
                        StatisticsStore& store, const Context& context);

}  // namespace sparsefuse

#endif  // SPARSEFUSE_PASSES_SENSITIVITY_CURVATURE_H_

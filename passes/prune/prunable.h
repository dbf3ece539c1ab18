// Modules with what pruning needs of them: the products that sum over their units, as matrices, and
// what a unit costs.

#ifndef SPARSEFUSE_PASSES_PRUNE_PRUNABLE_H_
#define SPARSEFUSE_PASSES_PRUNE_PRUNABLE_H_

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "passes/analysis/structure.h"
#include "passes/framework/context.h"
#include "passes/prune/removal.h"
#include "passes/statistics/matrix.h"

namespace sparsefuse {

struct Consumer {
  MatrixView matrix;
  std::vector<int64_t> unit_of;           // of each row of W; −1: it stays
  std::vector<int64_t> unit_of_position;  // the same along the feature axis of X
  bool image;                             // features along axis 1 of X, else along the last
};

struct Prunable {
  const Module* module;
  std::string name;  // "8 attention heads"
  std::vector<Consumer> consumers;
  std::vector<int64_t> counts;  // of units to keep, that come into question; descending
  std::string reason;           // why it cannot be pruned; empty: it can
};

// One a module of the structure, in its order; without counts.
std::vector<Prunable> FindPrunable(const Structure& structure);

// What a model's products with weights cost, and what is left of it when units go.
class ProductCosts {
 public:
  enum class Unit { kFlops, kParameters };

  // Multiply-adds of one sample (run once, for the shapes), or elements of weights. Needs
  // context.calibration for multiply-adds.
  ProductCosts(const Model& model, Unit unit, const Context& context);

  double total() const { return total_; }
  // Of the products that the modules run through.
  double Of(std::span<const Prunable* const> modules) const;
  // What the keeps save, all together.
  double Saved(std::span<const Keep> keeps) const;

 private:
  std::map<const Value*, double> per_weight_;
  double total_ = 0;
};

}  // namespace sparsefuse

#endif  // SPARSEFUSE_PASSES_PRUNE_PRUNABLE_H_

// Modules with what pruning needs of them: the products that sum over their units, as matrices.

#ifndef SPARSEFUSE_PASSES_SENSITIVITY_PRUNABLE_H_
#define SPARSEFUSE_PASSES_SENSITIVITY_PRUNABLE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "passes/analysis/structure.h"
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
  // Goes when no unit stays (a count of 0): its f is then a constant. Null: there is none, or it
  // may not go.
  const Block* block = nullptr;
};

// One a module of the structure, in its order; without counts.
std::vector<Prunable> FindPrunable(const Structure& structure);

}  // namespace sparsefuse

#endif  // SPARSEFUSE_PASSES_SENSITIVITY_PRUNABLE_H_

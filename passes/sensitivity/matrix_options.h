// What making one matrix coarser is predicted to cost.

#ifndef SPARSEFUSE_PASSES_SENSITIVITY_MATRIX_OPTIONS_H_
#define SPARSEFUSE_PASSES_SENSITIVITY_MATRIX_OPTIONS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "passes/sensitivity/evidence.h"

namespace sparsefuse {

struct MatrixOption {
  enum class Kind { kBits, kRank };
  Kind kind;
  int64_t value;     // bits of a weight; rank
  double error;      // predicted over what losing the whole matrix would cost, in 0…1 or above
  double predicted;  // KL per answer, in nats
  double measured = -1;  // the same on the select split, only this matrix changed; −1: no
};

struct MatrixOptions {
  const MatrixView* matrix;
  double rows = 0;                    // of data on the fit split
  std::vector<MatrixOption> options;  // bits from many to few, then ranks from high to low
  // Measured over predicted KL of either kind: geometric mean of what was measured.
  double bits_correction = 1, rank_correction = 1;
  std::string reason;  // why there are no options, or no ranks

  double Expected(const MatrixOption& option) const;
};

// One a matrix of the evidence. Rounding without search or feedback, and the best W' of a rank,
// each with its bias corrected; 4 and 3 bits and half the rank are measured. A matrix that no
// gradient reaches gets a reason; one that saw fewer than 4 rows an input gets no ranks.
std::vector<MatrixOptions> FindMatrixOptions(Evidence& evidence);

}  // namespace sparsefuse

#endif  // SPARSEFUSE_PASSES_SENSITIVITY_MATRIX_OPTIONS_H_

// Whether predictions put options in the order that measurements do.

#ifndef SPARSEFUSE_PASSES_SENSITIVITY_RANK_AGREEMENT_H_
#define SPARSEFUSE_PASSES_SENSITIVITY_RANK_AGREEMENT_H_

#include <span>

namespace sparsefuse {

// Spearman's rank correlation of pairs (a[i], b[i]); equal values share their mean rank. NaN for
// fewer than 3 pairs and where all of a or all of b are equal.
double SpearmanCorrelation(std::span<const double> a, std::span<const double> b);

}  // namespace sparsefuse

#endif  // SPARSEFUSE_PASSES_SENSITIVITY_RANK_AGREEMENT_H_

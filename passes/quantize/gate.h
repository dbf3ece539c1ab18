// Calibration of FuseGate (kernels/linear/gate.h): which rows of activations can do with the 4-bit
// reading of nested weights. What that costs a row, r = ‖(W₈ − W₄)·x‖, is estimated from ‖x‖ where
// that follows it, else from ‖S·x‖ with a sketch S of few rows; the threshold is a quantile of the
// estimates over rows of the select split.

#ifndef SPARSEFUSE_PASSES_QUANTIZE_GATE_H_
#define SPARSEFUSE_PASSES_QUANTIZE_GATE_H_

#include <cstdint>
#include <span>
#include <vector>

#include "passes/quantize/smoothing.h"

namespace sparsefuse {

struct FittedGate {
  std::vector<float> gate;        // as the operators read it, τ = 0; empty: there is none
  double r_squared = 0;           // of r̂ = a·‖…‖ + b over the select rows
  int64_t sketch_rows = 0;        // 0: ‖x‖ alone
  std::vector<double> estimates;  // r̂ of the select rows, ascending
};

// difference: W₈ − W₄ as rows [N, K]; fit, select: rows of X ⊙ smooth. Taken is ‖x‖ if it explains
// 90 % of the variance of r over the select rows, else the smallest sketch that does, else what
// explains most. Sketches span the directions in which W₈ − W₄ moves the fit rows most; they take
// at most 0.7 % of the weights' bytes. None without rows in both, or where nothing differs.
FittedGate FitGate(const ActivationRows& fit, const ActivationRows& select,
                   std::span<const float> difference, int64_t outputs);

// The threshold below which this share of the estimates lies. estimates: ascending, not empty.
float GateThreshold(std::span<const double> estimates, double share);

}  // namespace sparsefuse

#endif  // SPARSEFUSE_PASSES_QUANTIZE_GATE_H_

// QuantizedLinear8: a dense layer with int8 weights and activations quantised as they come.
//
// For each row of X, with x = X ⊙ smooth and a = max|x|:
//   s = max(a/127, 2⁻¹²⁶) + Σ 0·x              a row of zeros or denormals gives the bias; a row
//   with
//                                              NaN or Inf becomes all NaN and touches no other row
//   q[k] = clamp(round_half_even(x[k]/s), −127, 127)
//   t[g,n] = Σ q[k]·w[k,n]                     exact, over the inputs of scale row g
//   y[n] = s·Σ_g scale[g,n]·t[g,n] + bias[n]   g in order
// Every kernel computes the integers of the reference kernel, and floats with
//   |y − exact| ≤ (R + 4)·2⁻²⁴·(s·Σ_g |scale·t| + |y|)      R = scale rows of a panel
// and the same bits for any number of threads. It reads and writes nothing beyond its arrays.
//
// Weights are stored in layout 1 (pack.h): panels of 32 outputs × groups of 64 inputs, 2,048 bytes
// each.
//
//              panel 0                    panel 1                    weight bytes of one group
//   group 0 ┌─────────────┐ 1 scale   ┌─────────────┐               input   0 … 63
//   group 1 │ 64 in×32 out│ row of 32 │             │      output  0  ▮▮▮▮▮▮▮▮▮▮▮▮   64 bytes
//     …     │             │ for every │             │              …
//           └─────────────┘ G groups  └─────────────┘             31  ▮▮▮▮▮▮▮▮▮▮▮▮
//
// scale = scale_base·2^(scale_code/16); scale rows lie in panel order, then group order.
//
// Kernels allocate nothing, throw nothing, own no threads. Many threads may run one prepared layer.

#ifndef SPARSEFUSE_KERNELS_LINEAR_LINEAR_H_
#define SPARSEFUSE_KERNELS_LINEAR_LINEAR_H_

#include <cstddef>
#include <cstdint>
#include <span>

#include "kernels/base/cpu_features.h"
#include "kernels/base/parallel.h"
#include "kernels/linear/pack.h"

namespace sparsefuse {

struct LinearShape {
  int64_t inputs;        // K, 1 … kMaxInputs
  int64_t outputs;       // N, 1 … kMaxOutputs
  int64_t scale_groups;  // G, groups of a panel that share one row of scales; 0 = all of them

  constexpr int64_t panels() const noexcept { return PanelCount(outputs); }
  constexpr int64_t groups() const noexcept { return GroupsPerPanel(inputs); }
  constexpr int64_t groups_per_scale() const noexcept {
    return scale_groups == 0 || scale_groups > groups() ? groups() : scale_groups;
  }
  constexpr int64_t scale_rows_per_panel() const noexcept {
    return (groups() + groups_per_scale() - 1) / groups_per_scale();
  }
};

// The constants of a layer as they lie in the file. Owns nothing.
struct LinearWeights {
  LinearShape shape;
  const int8_t* weight;       // [panels·groups, 32, 16, 4], any alignment, any byte values
  const uint8_t* scale_code;  // [panels·scale_rows_per_panel, 32]
  float scale_base;           // > 0
  const float* bias;          // [N]
  const float* smooth;        // [K], or null for ones
};

struct LinearRun {
  int64_t rows;          // M ≥ 0
  const float* x;        // [M, K]
  float* y;              // [M, N], written; must not overlap anything else
  std::byte* workspace;  // workspace_bytes(shape, M) bytes
  ParallelFor parallel;
};

// `prepared` and `workspace` must be aligned to this.
inline constexpr size_t kLinearAlignment = 64;

struct LinearKernel {
  const char* name;   // also what SPARSEFUSE_ISA calls it
  CpuFeatures needs;  // all of them, to run
  // Preparing derives from the constants, once, what the kernel wants to read instead (weights in
  // another order, decoded scales). Whether run() still reads the arrays behind LinearWeights:
  bool reads_weights;
  size_t (*prepared_bytes)(const LinearShape& shape) noexcept;
  void (*prepare)(const LinearWeights& weights, std::byte* prepared) noexcept;
  size_t (*workspace_bytes)(const LinearShape& shape, int64_t rows) noexcept;
  void (*run)(const LinearWeights& weights, const std::byte* prepared,
              const LinearRun& run) noexcept;
};

// Best first, the reference last, which runs everywhere.
std::span<const LinearKernel* const> AllLinearKernels() noexcept;

// The kernel that SPARSEFUSE_ISA names, else the first that the CPU can run. Null only when
// SPARSEFUSE_ISA names none, or one that the CPU cannot run: see ExplainLinearChoice.
const LinearKernel* SelectLinearKernel() noexcept;

// Why SelectLinearKernel takes or leaves this kernel ("used", "the CPU lacks avx512f avx512vnni",
// "avx2 is faster", "SPARSEFUSE_ISA=ref"); with a null kernel, why it found none. Cut to text's
// size.
void ExplainLinearChoice(const LinearKernel* kernel, std::span<char> text) noexcept;

}  // namespace sparsefuse

#endif  // SPARSEFUSE_KERNELS_LINEAR_LINEAR_H_

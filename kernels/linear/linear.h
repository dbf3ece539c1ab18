// Linear layers with quantised weights, dense or block-sparse, and activations quantised as they
// come: the operators of docs/formats.md.
//
// For each row of X, with x = X ⊙ smooth and a = max|x|:
//   s = max(a/127, 2⁻¹²⁶) + Σ 0·x              a row of zeros or denormals gives the bias; a row
//   with
//                                              NaN or Inf becomes all NaN and touches no other row
//   q[k] = clamp(round_half_even(x[k]/s), −127, 127)
//   t[g,n] = Σ q[k]·w[k,n]                     exact, over the stored inputs of scale row g
//   v[n] = s·Σ_g scale[g,n]·t[g,n] + bias[n]   g in order
//   y[n] = activation(v[n])                    rounded to float16 where X is float16
// Every kernel computes the integers of the reference kernel, and floats with
//   |v − exact| ≤ (R + 4)·2⁻²⁴·(s·Σ_g |scale·t| + |v|)      R = scale rows of a panel
// (activations: activation.h) and the same bits for any number of threads, and for a row whatever
// the other rows are. It reads and writes nothing beyond its arrays.
//
// Weights are stored in layout 1 (pack.h): panels of 32 outputs × groups of 16 quads, a quad being
// 4 consecutive inputs. A dense panel has every quad; a sparse one those that it lists.
//
//              panel 0                    panel 1                    weight bytes of one int8 group
//   group 0 ┌─────────────┐ 1 scale   ┌─────────────┐               quad    0 … 15
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
#include "kernels/linear/activation.h"
#include "kernels/linear/pack.h"

namespace sparsefuse {

struct LinearShape {
  int64_t inputs;            // K, 1 … kMaxInputs
  int64_t outputs;           // N, 1 … kMaxOutputs
  int64_t scale_groups = 0;  // G, groups of a panel that share one row of scales; 0 = all of them
  Encoding encoding = Encoding::kInt8;
  bool sparse = false;
  float zero_inputs = 0;  // share of a row's codes q that are expected to be 0; a hint

  constexpr int64_t panels() const noexcept { return PanelCount(outputs); }
  // Of a panel with `groups` groups. A sparse panel without groups has one row of scales when it
  // is one row a panel, else none.
  constexpr int64_t ScaleRows(int64_t groups) const noexcept {
    return scale_groups == 0 ? 1 : (groups + scale_groups - 1) / scale_groups;
  }
};

// The constants of a layer as they lie in the file. Owns nothing.
struct LinearWeights {
  LinearShape shape;
  const std::byte* weight;    // groups · group bytes (pack.h), any alignment, any byte values
  const uint8_t* scale_code;  // [S, 32]
  float scale_base;           // > 0
  const float* bias;          // [N]
  const float* smooth;        // [K], or null for ones
  BlockIndex blocks;          // of a sparse layer; must pass CheckBlocks
  const float* gate;          // nested: [4 + sketch rows·K] (gate.h), or null: never gated

  constexpr int64_t FirstGroup(int64_t panel) const noexcept {
    return shape.sparse ? blocks.group_ptr[panel] : panel * GroupsPerPanel(shape.inputs);
  }
  constexpr int64_t GroupCount() const noexcept { return FirstGroup(shape.panels()); }
};

// S: rows of scales of all panels.
int64_t ScaleRowCount(const LinearWeights& weights) noexcept;

// When a nested layer may read a row in 4 bits.
enum class GateMode : uint8_t {
  kOff,
  kFewRows,  // only in runs of at most kGatedRows rows, where weights are the bottleneck
  kAlways,
};
inline constexpr int64_t kGatedRows = 8;

struct LinearRun {
  int64_t rows;       // M ≥ 0
  const void* x;      // [M, K], float or float16
  void* y;            // [M, N], the same type, written; must not overlap anything else
  bool half = false;  // x and y are float16
  Activation activation = Activation::kNone;
  GateMode gate = GateMode::kOff;
  int64_t* easy_rows = nullptr;  // unless null: set to the number of rows read in 4 bits
  std::byte* workspace;          // workspace_bytes(weights, M) bytes
  ParallelFor parallel;
};

constexpr bool IsGated(GateMode mode, int64_t rows) noexcept {
  return mode == GateMode::kAlways || (mode == GateMode::kFewRows && rows <= kGatedRows);
}
constexpr bool IsGated(const LinearRun& run) noexcept { return IsGated(run.gate, run.rows); }

// `prepared` and `workspace` must be aligned to this.
inline constexpr size_t kLinearAlignment = 64;

struct LinearKernel {
  const char* name;   // also what SPARSEFUSE_ISA calls it
  CpuFeatures needs;  // all of them, to run
  // Preparing derives from the constants, once, what the kernel wants to read instead (weights in
  // another order, decoded scales). Whether run() still reads the arrays behind LinearWeights, or
  // only its shape:
  bool reads_weights;
  size_t (*prepared_bytes)(const LinearWeights& weights) noexcept;
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

// The linear layers of kernels/linear/linear.h on NVIDIA GPUs from compute capability 8.0 on: the
// same weights, as they lie in the file, and the same meaning. The integer sums are the CPU's;
// floats keep the bound of linear.h. Results do not depend on timing. Where a panel has several
// rows of scales they may differ in the last bits between plans, and between few rows and many.
//
// Weights in layout 1 need no other order here: in a group, the 16 bytes that a thread of a warp
// loads from an output's row are quads 4t … 4t + 3 (t = lane mod 4), which serve as the four
// registers that mma.m16n8k32 wants of this thread in two steps, if the activations are read with
// the same exchange of inputs. So a plane of a group is loaded by four (int8) or two (4 bits)
// fully coalesced loads.
//
// No allocation, no synchronisation, no read-back: a stream that runs a layer can be captured. The
// device must be the one that the layer was prepared on. Runs that may overlap need a workspace
// each.
//
// Every function returns an error, cudaErrorMisalignedAddress where an address is not what is asked
// for here, and launches nothing then.

#ifndef SPARSEFUSE_KERNELS_CUDA_LINEAR_H_
#define SPARSEFUSE_KERNELS_CUDA_LINEAR_H_

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

#include "kernels/cuda/plan.h"
#include "kernels/linear/linear.h"

namespace sparsefuse::cuda {

inline constexpr int64_t kDecodeRows = 16;  // more are worked on as tiles of a matrix product
inline constexpr size_t kAlignment = 256;   // of `prepared` and `workspace`

// Kernels made for one layer (code.h); null: the library's own.
struct MadeKernels {
  cudaKernel_t decode8 = nullptr, decode16 = nullptr, prefill = nullptr;
};

// A prepared layer. The arrays behind `weights` are in device memory (so its functions that read
// them are not for the host), but for blocks.group_ptr, which nobody reads; weight, smooth and quad
// aligned to 16 bytes. They are read before launches that came just ahead have ended, so they must
// be complete by then, not only earlier in the stream; what a copy brought is.
struct Layer {
  LinearWeights weights;
  int64_t panels, plane_bytes;
  int32_t workers, slots, shared_panels;
  bool runs;
  bool overlaps_launches;  // compute capability 9.0 or more
  bool is_sm90;            // exactly 9.0
  Room room;               // of a block at few rows; kSmall runs wherever kLarge does
  MadeKernels made = {};
  // Device memory, inside `prepared`:
  const Worker* worker;
  const int32_t *group_ptr, *slot_ptr, *scale_ptr, *row_ptr, *tile_order;
  const float* scale;           // [scale_rows, 32]
  const uint32_t* input_words;  // a second copy of weights whose inputs are mostly 0, or null
};

// Rows of layers with a gate. On the device, so that replayed graphs count, too.
struct GateCounts {
  unsigned long long rows;  // that a gate judged
  unsigned long long easy;  // of them read in 4 bits
};

struct Run {
  int64_t rows;   // M ≥ 0
  const void* x;  // [M, K], float or float16, aligned to 16 bytes
  void* y;        // [M, N], the same type, aligned to 16 bytes
  bool half = false;
  Activation activation = Activation::kNone;
  GateMode gate = GateMode::kOff;
  GateCounts* gate_counts = nullptr;  // device memory, added to where a gate judges the rows
  std::byte* workspace;               // device memory, WorkspaceBytes(layer, M)
};

// The current device, as far as kernels are chosen by it.
struct Device {
  int major, minor;  // compute capability
  int multiprocessors;
  DecodeShare share;
  bool is_sm90() const noexcept { return major == 9 && minor == 0; }
};
cudaError_t FindDevice(Device* device) noexcept;

// Slices of work that suit the current device: as many as it works on at once.
cudaError_t SuggestWorkers(int32_t* workers) noexcept;

// Of device memory, for Prepare.
size_t PreparedBytes(const Plan& plan) noexcept;

// Copies the plan and decodes the scales, on `stream`. The plan is that of the same blocks, and
// must live until the stream is there.
cudaError_t Prepare(const LinearWeights& weights, const Plan& plan, std::byte* prepared,
                    cudaStream_t stream, Layer* layer) noexcept;

// Of device memory, for a run of so many rows.
size_t WorkspaceBytes(const Layer& layer, int64_t rows) noexcept;

// Y = the layer of X, on `stream`; kernels/linear/linear.h says what that is.
cudaError_t Linear(const Layer& layer, const Run& run, cudaStream_t stream) noexcept;

}  // namespace sparsefuse::cuda

#endif  // SPARSEFUSE_KERNELS_CUDA_LINEAR_H_

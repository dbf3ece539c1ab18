#ifndef SPARSEFUSE_KERNELS_CUDA_QUANTIZE_H_
#define SPARSEFUSE_KERNELS_CUDA_QUANTIZE_H_

#include <cuda_runtime_api.h>

#include <cstdint>

namespace sparsefuse::cuda {

// Tiled codes: [⌈rows / 256⌉][codes_stride / 64][256 rows][64]. Of a row's 64 codes the 16 quads
// form a transposed 4 × 4 matrix (quad 4a + b in the place of quad 4b + a), whose rows of 16 bytes
// lie in the order that keeps neighbouring rows out of each other's banks: piece p at p ^ (row / 2
// mod 4).
inline constexpr int kTileRowsSm90 = 256;

struct GateCounts;  // linear.h

struct QuantizeJob {
  const void* x;  // [rows, inputs], float or float16, aligned to 16 bytes
  bool half;
  const float* smooth;  // [inputs], aligned to 16 bytes, or null for ones
  const float* gate;    // gate.h, where `easy` is wanted
  int64_t inputs;
  int8_t* codes;         // [rows, codes_stride], or tiles; zeros beyond the inputs
  int64_t codes_stride;  // a multiple of 64, at least inputs + 4
  bool tiled;            // as prefill_sm90.cu wants them
  float* row_scale;      // [rows]
  int32_t* easy;         // [rows], or null
  GateCounts* counts;    // to be added to where `easy` is wanted; or null
  int32_t* counter;      // [counters], to be put to 0
  int64_t counters;
};

// rows ≥ 1. overlaps: may start while the launch before it still runs, for which it waits itself.
cudaError_t LaunchQuantize(const QuantizeJob& job, int64_t rows, bool overlaps,
                           cudaStream_t stream) noexcept;

}  // namespace sparsefuse::cuda

#endif  // SPARSEFUSE_KERNELS_CUDA_QUANTIZE_H_

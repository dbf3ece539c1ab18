// The straightforward way to a layer without kernels of its own, which benchmarks compare with: its
// weights become a float16 matrix, which a float16 product multiplies.

#ifndef SPARSEFUSE_TESTS_BENCH_DEQUANTISE_H_
#define SPARSEFUSE_TESTS_BENCH_DEQUANTISE_H_

#include <cuda_fp16.h>
#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

#include "kernels/linear/pack.h"

#ifdef __CUDACC__
#define SPARSEFUSE_HOST_DEVICE __host__ __device__
#else
#define SPARSEFUSE_HOST_DEVICE
#endif

namespace sparsefuse::test {

// A layer in layout 1 (pack.h). The arrays are in the memory of whoever decodes.
struct DequantiseJob {
  Encoding encoding;
  bool high_only;           // nested: the 4-bit reading, which reads the first plane alone
  int64_t inputs, outputs;  // inputs: a multiple of 4
  int64_t scale_groups;     // as in LinearShape
  const std::byte* weight;
  int64_t plane_bytes;                   // of all groups in one plane
  const uint16_t* quad;                  // [16·groups]; null: dense
  const int32_t *group_ptr, *scale_ptr;  // [panels + 1]: first group, first row of scales
  const float* scale;                    // [scale rows, 32]
};

inline constexpr int kGroupItems = 32 * 16;  // quads of all outputs of a group

// Four neighbouring inputs of an output.
struct DequantisedQuad {
  int64_t output, input;  // input: the first
  float weight[4];
};

// Quad item mod 16 of output ⌊item/16⌋ of a panel's group. False where it is padding.
SPARSEFUSE_HOST_DEVICE inline bool DequantiseQuad(const DequantiseJob& job, int64_t panel,
                                                  int64_t group, int item, DequantisedQuad* to) {
  const int r = item / 16, q = item % 16;
  const int64_t group_of_panel = group - job.group_ptr[panel];
  const int64_t quad = job.quad ? job.quad[group * 16 + q] : group_of_panel * 16 + q;
  to->output = panel * 32 + r;
  to->input = quad * 4;
  if (to->output >= job.outputs || to->input >= job.inputs) return false;

  const int64_t scale_row =
      job.scale_ptr[panel] + (job.scale_groups == 0 ? 0 : group_of_panel / job.scale_groups);
  const float scale = job.scale[scale_row * 32 + r];
  // In 4 bits outputs r and 16 + r share a byte.
  const bool is_nibble = job.encoding != Encoding::kInt8;
  const int64_t first = is_nibble ? group * 1024 + (r % 16) * 64 : group * 2048 + r * 64;
  const int shift = r < 16 ? 0 : 4;
  for (int k = 0; k < 4; ++k) {
    const int64_t at = first + q * 4 + k;
    int code = static_cast<int>(job.weight[at]);
    if (is_nibble) code = (code >> shift) & 15;
    if (IsNested(job.encoding)) {
      const int low = job.high_only ? 0 : static_cast<int>(job.weight[job.plane_bytes + at]);
      code = code << 4 | ((low >> shift) & 15);
    } else if (is_nibble) {
      code = (code ^ 8) - 8;  // two's complement
    }
    const auto byte = static_cast<int8_t>(code);
    const int weight =
        job.high_only ? DecodeHigh(job.encoding, byte) : DecodeWeight(job.encoding, byte);
    to->weight[k] = scale * static_cast<float>(weight);
  }
  return true;
}

// Writes the stored weights of `job`, in device memory, to matrix [outputs, inputs]; sparse layers
// want zeros there before. matrix: aligned to 8 bytes.
cudaError_t LaunchDequantise(const DequantiseJob& job, __half* matrix, cudaStream_t stream);

}  // namespace sparsefuse::test

#endif  // SPARSEFUSE_TESTS_BENCH_DEQUANTISE_H_

#include "tests/bench/dequantise.h"

namespace sparsefuse::test {
namespace {

constexpr int kBlocksOfPanel = 8;

// A block of threads takes every kBlocksOfPanel-th group of a panel, a thread a quad.
__global__ void __launch_bounds__(kGroupItems) Dequantise(DequantiseJob job, __half* matrix) {
  const int64_t panel = blockIdx.x;
  const int64_t end = job.group_ptr[panel + 1];
  for (int64_t group = job.group_ptr[panel] + blockIdx.y; group < end; group += kBlocksOfPanel) {
    DequantisedQuad quad;
    if (!DequantiseQuad(job, panel, group, static_cast<int>(threadIdx.x), &quad)) continue;
    // Aligned to 8 bytes, as the matrix is: a row has a multiple of 4 weights.
    auto* to = reinterpret_cast<__half2*>(matrix + quad.output * job.inputs + quad.input);
    to[0] = __floats2half2_rn(quad.weight[0], quad.weight[1]);
    to[1] = __floats2half2_rn(quad.weight[2], quad.weight[3]);
  }
}

}  // namespace

cudaError_t LaunchDequantise(const DequantiseJob& job, __half* matrix, cudaStream_t stream) {
  if (job.inputs % 4 != 0) return cudaErrorInvalidValue;
  const dim3 blocks(static_cast<unsigned>(PanelCount(job.outputs)), kBlocksOfPanel);
  Dequantise<<<blocks, kGroupItems, 0, stream>>>(job, matrix);
  return cudaGetLastError();
}

}  // namespace sparsefuse::test

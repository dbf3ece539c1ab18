// Activations: each row's scale, codes and, of a gated layer, whether 4 bits are enough. A block of
// threads a row. Beside the rows it puts the counters of the kernel that follows to 0.

#include <cfloat>

#include "kernels/cuda/device.cuh"
#include "kernels/cuda/quantize.h"
#include "kernels/linear/gate.h"

namespace sparsefuse::cuda {
namespace {

constexpr int kThreads = 1024;

__device__ float Value(const QuantizeJob& job, int64_t row, int64_t k) {
  const int64_t at = row * job.inputs + k;
  const float x = job.half ? __half2float(static_cast<const __half*>(job.x)[at])
                           : static_cast<const float*>(job.x)[at];
  return job.smooth ? x * job.smooth[k] : x;
}

struct Four {
  float v[4];
};

// Inputs k … k + 3, zeros beyond the last; k a multiple of 4.
__device__ Four Values(const QuantizeJob& job, int64_t row, int64_t k) {
  Four four{};
  if (job.inputs % 4 != 0) {  // rows are not aligned
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (k + i < job.inputs) four.v[i] = Value(job, row, k + i);
    }
    return four;
  }
  if (k >= job.inputs) return four;
  const int64_t at = row * job.inputs + k;
  if (job.half) {
    const uint2 bits = *reinterpret_cast<const uint2*>(static_cast<const __half*>(job.x) + at);
    const float2 low = __half22float2(*reinterpret_cast<const __half2*>(&bits.x));
    const float2 high = __half22float2(*reinterpret_cast<const __half2*>(&bits.y));
    four = {{low.x, low.y, high.x, high.y}};
  } else {
    const float4 f = *reinterpret_cast<const float4*>(static_cast<const float*>(job.x) + at);
    four = {{f.x, f.y, f.z, f.w}};
  }
  if (job.smooth) {
#pragma unroll
    for (int i = 0; i < 4; ++i) four.v[i] *= job.smooth[k + i];
  }
  return four;
}

template <typename T, typename Combine>
__device__ T OverBlock(T value, Combine combine) {
  __shared__ T parts[kThreads / kWarp];
#pragma unroll
  for (int step = kWarp / 2; step > 0; step /= 2) {
    value = combine(value, __shfl_xor_sync(~0u, value, step));
  }
  __syncthreads();  // the parts of the last use have been read
  if (threadIdx.x % kWarp == 0) parts[threadIdx.x / kWarp] = value;
  __syncthreads();
  value = parts[0];
  for (int i = 1; i < static_cast<int>(blockDim.x) / kWarp; ++i) value = combine(value, parts[i]);
  return value;
}

// ‖x‖², or ‖S·x‖² with a sketch. In double precision, unlike the CPU's: the two may decide
// differently about a row whose estimate is within float's rounding of the threshold.
__device__ double GateSquare(const QuantizeJob& job, int64_t row) {
  const auto sketch_rows = static_cast<int>(job.gate[3]);
  const auto add = [](double a, double b) { return a + b; };
  double square = 0;
  for (int r = 0; r < max(sketch_rows, 1); ++r) {
    double sum = 0;
    for (int64_t k = threadIdx.x; k < job.inputs; k += blockDim.x) {
      const double x = Value(job, row, k);
      sum += x * (sketch_rows ? job.gate[kGateHeader + r * job.inputs + k] : x);
    }
    sum = OverBlock(sum, add);
    square += sketch_rows ? sum * sum : sum;
  }
  return square;
}

__global__ void __launch_bounds__(kThreads) QuantizeKernel(const __grid_constant__ QuantizeJob job) {
  LetNextLaunchStart();
  const int64_t row = blockIdx.x;
  if (row == 0) {
    for (int64_t i = threadIdx.x; i < job.counters; i += blockDim.x) job.counter[i] = 0;
  }
  float largest = 0;
  bool finite = true;
  for (int64_t k = threadIdx.x * 4; k < job.inputs; k += blockDim.x * 4) {
    const Four x = Values(job, row, k);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      largest = fmaxf(largest, fabsf(x.v[i]));
      finite &= fabsf(x.v[i]) <= FLT_MAX;
    }
  }
  largest = OverBlock(finite ? largest : INFINITY, [](float a, float b) { return fmaxf(a, b); });
  finite = largest <= FLT_MAX;
  const float scale = finite ? fmaxf(largest / 127.0f, 0x1p-126f) : NAN;
  int8_t* codes = job.codes + row * job.codes_stride;
  for (int64_t k = threadIdx.x * 4; k < job.codes_stride; k += blockDim.x * 4) {
    uint32_t word = 0;
    if (finite && k < job.inputs) {
      const Four x = Values(job, row, k);
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const float clamped = fminf(fmaxf(x.v[i] / scale, -127.0f), 127.0f);
        word |= (static_cast<uint32_t>(__float2int_rn(clamped)) & 0xffu) << 8 * i;
      }
    }
    *reinterpret_cast<uint32_t*>(codes + k) = word;
  }
  if (threadIdx.x == 0) job.row_scale[row] = scale;
  if (!job.easy) return;
  const double square = GateSquare(job, row);
  const bool easy = square <= FLT_MAX &&
                    job.gate[0] * sqrtf(static_cast<float>(square)) + job.gate[1] < job.gate[2];
  if (threadIdx.x == 0) {
    job.easy[row] = easy;
    if (easy && job.easy_rows) atomicAdd(job.easy_rows, 1ull);
  }
}

}  // namespace

cudaError_t LaunchQuantize(const QuantizeJob& job, int64_t rows, cudaStream_t stream) noexcept {
  const int64_t wanted = (job.codes_stride / 4 + kWarp - 1) / kWarp * kWarp;
  const auto threads = static_cast<unsigned>(wanted < kThreads ? wanted : kThreads);
  QuantizeKernel<<<static_cast<unsigned>(rows), threads, 0, stream>>>(job);
  return cudaGetLastError();
}

}  // namespace sparsefuse::cuda

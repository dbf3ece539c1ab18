// Activations: each row's scale, codes and, of a gated layer, whether 4 bits are enough. A block of
// threads a row. Beside the rows it puts the counters of the kernel that follows to 0.

#include <algorithm>
#include <cfloat>

#include "kernels/cuda/device.cuh"
#include "kernels/cuda/launch.cuh"
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
    const float4 smooth = *reinterpret_cast<const float4*>(job.smooth + k);
    four = {
        {four.v[0] * smooth.x, four.v[1] * smooth.y, four.v[2] * smooth.z, four.v[3] * smooth.w}};
  }
  return four;
}

template <typename T, typename Combine>
__device__ T OverWarp(T value, Combine combine) {
#pragma unroll
  for (int step = kWarp / 2; step > 0; step /= 2) {
    value = combine(value, __shfl_xor_sync(~0u, value, step));
  }
  return value;
}

// T{} must be neutral.
template <typename T, typename Combine>
__device__ T OverBlock(T value, Combine combine) {
  __shared__ T parts[kThreads / kWarp];
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  value = OverWarp(value, combine);
  __syncthreads();  // the parts of the last use have been read
  if (lane == 0) parts[warp] = value;
  __syncthreads();
  return OverWarp(lane < static_cast<int>(blockDim.x) / kWarp ? parts[lane] : T{}, combine);
}

// clamp(round_half_even(x / scale), ±127). The quotient by way of the reciprocal is within 2⁻¹⁵ of
// the true one, rounded or not; only where that could matter is the division done.
__device__ int Code(float x, float scale, float reciprocal) {
  float quotient = x * reciprocal;
  if (!(fabsf(quotient - rintf(quotient)) <= 0.5f - 0x1p-13f)) quotient = x / scale;
  return __float2int_rn(fminf(fmaxf(quotient, -127.0f), 127.0f));
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

// Where the four codes from input k on belong.
__device__ int64_t Place(const QuantizeJob& job, int64_t row, int64_t k) {
  if (!job.tiled) return row * job.codes_stride + k;
  const int64_t groups = job.codes_stride / kGroupInputs;
  const int quad = static_cast<int>(k / 4 % kGroupQuads), piece = quad % 4, word = quad / 4;
  const int in_tile = static_cast<int>(row % kTileRowsSm90);
  return ((row / kTileRowsSm90 * groups + k / kGroupInputs) * kTileRowsSm90 + in_tile) *
             kGroupInputs +
         (piece ^ in_tile / 2 % 4) * 16 + word * 4;
}

// The first inputs of a row stay in registers between the two passes.
constexpr int kHeld = 4;

__global__ void __launch_bounds__(kThreads)
    QuantizeKernel(const __grid_constant__ QuantizeJob job) {
  LetNextLaunchStart();
  WaitForEarlierLaunch();
  const int64_t row = blockIdx.x;
  for (int64_t i = row * blockDim.x + threadIdx.x; i < job.counters;
       i += int64_t{gridDim.x} * blockDim.x) {
    job.counter[i] = 0;
  }
  const int64_t first = threadIdx.x * 4, step = blockDim.x * 4;
  float largest = 0;
  bool finite = true;
  const auto measure = [&](const Four& x) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      largest = fmaxf(largest, fabsf(x.v[i]));
      finite &= fabsf(x.v[i]) <= FLT_MAX;
    }
  };
  Four held[kHeld];
#pragma unroll
  for (int i = 0; i < kHeld; ++i) held[i] = Values(job, row, first + i * step);
#pragma unroll
  for (int i = 0; i < kHeld; ++i) measure(held[i]);
#pragma unroll 4
  for (int64_t k = first + kHeld * step; k < job.inputs; k += step) measure(Values(job, row, k));
  largest = OverBlock(finite ? largest : INFINITY, [](float a, float b) { return fmaxf(a, b); });
  finite = largest <= FLT_MAX;
  const float scale = finite ? fmaxf(largest / 127.0f, 0x1p-126f) : NAN;

  const float reciprocal = 1.0f / scale;  // scale is NaN or in 2⁻¹²⁶ … 2¹²¹
  const auto write = [&](int64_t k, const Four& x) {
    if (k >= job.codes_stride) return;
    uint32_t word = 0;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int code = finite ? Code(x.v[i], scale, reciprocal) : 0;
      word |= (static_cast<uint32_t>(code) & 0xffu) << 8 * i;
    }
    *reinterpret_cast<uint32_t*>(job.codes + Place(job, row, k)) = word;
  };
#pragma unroll
  for (int i = 0; i < kHeld; ++i) write(first + i * step, held[i]);
#pragma unroll 4
  for (int64_t k = first + kHeld * step; k < job.codes_stride; k += step) {
    write(k, Values(job, row, k));
  }
  if (threadIdx.x == 0) job.row_scale[row] = scale;
  if (!job.easy) return;
  const double square = GateSquare(job, row);
  const bool easy = square <= FLT_MAX &&
                    job.gate[0] * sqrtf(static_cast<float>(square)) + job.gate[1] < job.gate[2];
  if (threadIdx.x == 0) {
    job.easy[row] = easy;
    if (job.counts) atomicAdd(&job.counts->rows, 1ull);
    if (job.counts && easy) atomicAdd(&job.counts->easy, 1ull);
  }
}

}  // namespace

cudaError_t LaunchQuantize(const QuantizeJob& job, int64_t rows, bool overlaps,
                           cudaStream_t stream) noexcept {
  // Few rows: many threads each. Many: as many as hold a row in their registers.
  constexpr int64_t kFewRows = 64;
  const int64_t thread_inputs = rows <= kFewRows ? 4 : 4 * kHeld;
  const int64_t wanted = (job.codes_stride / thread_inputs + kWarp - 1) / kWarp * kWarp;
  return LaunchKernel(QuantizeKernel, nullptr, rows, std::min<int64_t>(wanted, kThreads), 0,
                      overlaps, stream, job);
}

}  // namespace sparsefuse::cuda

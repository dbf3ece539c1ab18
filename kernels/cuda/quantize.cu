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
__device__ T OverWarp(T value, Combine combine) {
#pragma unroll
  for (int step = kWarp / 2; step > 0; step /= 2) {
    value = combine(value, __shfl_xor_sync(~0u, value, step));
  }
  return value;
}

// A row's team: a block of threads, or a warp of one. T{} must be neutral.
template <bool kWarpEach, typename T, typename Combine>
__device__ T OverTeam(T value, Combine combine) {
  value = OverWarp(value, combine);
  if constexpr (!kWarpEach) {
    __shared__ T parts[kThreads / kWarp];
    const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
    __syncthreads();  // the parts of the last use have been read
    if (lane == 0) parts[warp] = value;
    __syncthreads();
    value = OverWarp(lane < static_cast<int>(blockDim.x) / kWarp ? parts[lane] : T{}, combine);
  }
  return value;
}

// ‖x‖², or ‖S·x‖² with a sketch. In double precision, unlike the CPU's: the two may decide
// differently about a row whose estimate is within float's rounding of the threshold.
template <bool kWarpEach>
__device__ double GateSquare(const QuantizeJob& job, int64_t row, int member, int members) {
  const auto sketch_rows = static_cast<int>(job.gate[3]);
  const auto add = [](double a, double b) { return a + b; };
  double square = 0;
  for (int r = 0; r < max(sketch_rows, 1); ++r) {
    double sum = 0;
    for (int64_t k = member; k < job.inputs; k += members) {
      const double x = Value(job, row, k);
      sum += x * (sketch_rows ? job.gate[kGateHeader + r * job.inputs + k] : x);
    }
    sum = OverTeam<kWarpEach>(sum, add);
    square += sketch_rows ? sum * sum : sum;
  }
  return square;
}

// The first inputs of a row stay in registers between the two passes.
constexpr int kHeld = 4;

template <bool kWarpEach>
__global__ void __launch_bounds__(kWarpEach ? 256 : kThreads)
    QuantizeKernel(const __grid_constant__ QuantizeJob job, int64_t rows) {
  LetNextLaunchStart();
  WaitForEarlierLaunch();
  const int member = static_cast<int>(kWarpEach ? threadIdx.x % kWarp : threadIdx.x);
  const int members = static_cast<int>(kWarpEach ? kWarp : blockDim.x);
  const int64_t row =
      kWarpEach ? (int64_t{blockIdx.x} * blockDim.x + threadIdx.x) / kWarp : blockIdx.x;
  if (row >= rows) return;
  if (row == 0) {
    for (int64_t i = member; i < job.counters; i += members) job.counter[i] = 0;
  }
  const int64_t first = member * 4, step = members * 4;
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
  largest = OverTeam<kWarpEach>(finite ? largest : INFINITY, [](float a, float b) { return fmaxf(a, b); });
  finite = largest <= FLT_MAX;
  const float scale = finite ? fmaxf(largest / 127.0f, 0x1p-126f) : NAN;

  int8_t* codes = job.codes + row * job.codes_stride;
  const auto write = [&](int64_t k, const Four& x) {
    if (k >= job.codes_stride) return;
    uint32_t word = 0;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float clamped = fminf(fmaxf(x.v[i] / scale, -127.0f), 127.0f);
      const int code = finite ? __float2int_rn(clamped) : 0;
      word |= (static_cast<uint32_t>(code) & 0xffu) << 8 * i;
    }
    const int quad = static_cast<int>(k / 4 % kGroupQuads);
    const int64_t place = job.transposed ? k + ((quad % 4 * 4 + quad / 4) - quad) * 4 : k;
    *reinterpret_cast<uint32_t*>(codes + place) = word;
  };
#pragma unroll
  for (int i = 0; i < kHeld; ++i) write(first + i * step, held[i]);
#pragma unroll 4
  for (int64_t k = first + kHeld * step; k < job.codes_stride; k += step) {
    write(k, Values(job, row, k));
  }
  if (member == 0) job.row_scale[row] = scale;
  if (!job.easy) return;
  const double square = GateSquare<kWarpEach>(job, row, member, members);
  const bool easy = square <= FLT_MAX &&
                    job.gate[0] * sqrtf(static_cast<float>(square)) + job.gate[1] < job.gate[2];
  if (member == 0) {
    job.easy[row] = easy;
    if (easy && job.easy_rows) atomicAdd(job.easy_rows, 1ull);
  }
}

}  // namespace

cudaError_t LaunchQuantize(const QuantizeJob& job, int64_t rows, bool overlaps,
                           cudaStream_t stream) noexcept {
#ifndef QT
#define QT 4
#endif
  constexpr int64_t kFewRows = 64, kWarpsPerBlock = 8, kThreadInputs = QT;
  const bool warp_each = rows > kFewRows;
  const int64_t wanted = (job.codes_stride / kThreadInputs + kWarp - 1) / kWarp * kWarp;
  cudaLaunchAttribute overlap{};
  overlap.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  overlap.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(
      warp_each ? (rows + kWarpsPerBlock - 1) / kWarpsPerBlock : rows));
  config.blockDim = dim3(static_cast<unsigned>(warp_each           ? kWarpsPerBlock * kWarp
                                               : wanted < kThreads ? wanted
                                                                   : kThreads));
  config.stream = stream;
  config.attrs = &overlap;
  config.numAttrs = overlaps ? 1 : 0;
  return warp_each ? cudaLaunchKernelEx(&config, QuantizeKernel<true>, job, rows)
                   : cudaLaunchKernelEx(&config, QuantizeKernel<false>, job, rows);
}

}  // namespace sparsefuse::cuda

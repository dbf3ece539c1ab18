// Many rows on compute capability 9.0: the product of prefill.cu by the instructions of that
// generation, which read the activations from shared memory themselves, a warp group (4 warps) at a
// time. Weights stay packed until a warp has its 16 outputs in registers.
//
//             256 rows of X              Two warp groups, 64 outputs (2 panels) each; every warp holds
//           ┌──────────────┐             16 outputs × 256 rows of sums. A thread of a third group has both operands
//   group 0 │ 64 outputs   │             copied: a group of a panel is one piece of memory, and so are
//   group 1 │ 64 outputs   │             256 rows × 64 inputs of tiled codes (quantize.h), whose order
//           └──────────────┘             is that in which a thread meets the weights of layout 1.

#include "kernels/cuda/device.cuh"
#include "kernels/cuda/quantize.h"

namespace sparsefuse::cuda {
namespace {

constexpr int kPanels = 4, kRows = kTileRowsSm90;
constexpr int kWarps = 8, kThreads = (kWarps + 4) * kWarp;  // and the group that copies
constexpr int kRowBytes = kRows * kGroupInputs;
constexpr int kPart = 64;  // sums of one product: 64 outputs × 128 rows, a thread's share

template <Encoding kEncoding>
constexpr int kStageBytes = kPanels * static_cast<int>(GroupBytes(kEncoding)) + kRowBytes;
constexpr int kStages = 8;
constexpr int kAlign = 1024;  // of the first stage; before it lie the barriers

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

// sum[64 outputs × 128 rows] += a[64 × 32 inputs] · b, b in shared memory. Asynchronous.
__device__ void MultiplyAddAsync(int32_t (&d)[kPart], uint32_t a0, uint32_t a1, uint32_t a2,
                                 uint32_t a3, uint64_t b) {
  asm volatile(
      "wgmma.mma_async.sync.aligned.m64n128k32.s32.s8.s8 {"
      "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
      "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
      "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
      "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, "
      "{%64, %65, %66, %67}, %68, 1;"
      : // clang-format off
        "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3]), "+r"(d[4]), "+r"(d[5]), "+r"(d[6]), "+r"(d[7]),
        "+r"(d[8]), "+r"(d[9]), "+r"(d[10]), "+r"(d[11]), "+r"(d[12]), "+r"(d[13]), "+r"(d[14]), "+r"(d[15]),
        "+r"(d[16]), "+r"(d[17]), "+r"(d[18]), "+r"(d[19]), "+r"(d[20]), "+r"(d[21]), "+r"(d[22]), "+r"(d[23]),
        "+r"(d[24]), "+r"(d[25]), "+r"(d[26]), "+r"(d[27]), "+r"(d[28]), "+r"(d[29]), "+r"(d[30]), "+r"(d[31]),
        "+r"(d[32]), "+r"(d[33]), "+r"(d[34]), "+r"(d[35]), "+r"(d[36]), "+r"(d[37]), "+r"(d[38]), "+r"(d[39]),
        "+r"(d[40]), "+r"(d[41]), "+r"(d[42]), "+r"(d[43]), "+r"(d[44]), "+r"(d[45]), "+r"(d[46]), "+r"(d[47]),
        "+r"(d[48]), "+r"(d[49]), "+r"(d[50]), "+r"(d[51]), "+r"(d[52]), "+r"(d[53]), "+r"(d[54]), "+r"(d[55]),
        "+r"(d[56]), "+r"(d[57]), "+r"(d[58]), "+r"(d[59]), "+r"(d[60]), "+r"(d[61]), "+r"(d[62]), "+r"(d[63])
        // clang-format on
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "l"(b));
}
__device__ void BeginProducts() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ void CommitProducts() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int kPending>
__device__ void WaitForProducts() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
}
__device__ void SyncConsumers() {
  asm volatile("bar.sync 1, %0;" ::"n"(kWarps * kWarp) : "memory");
}

// One arrival, and `bytes` that copies will bring.
__device__ void ArriveAndExpect(Barrier* barrier, int bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(
                   SharedAddress(barrier)),
               "r"(bytes)
               : "memory");
}
// Tells the barrier when the bytes are there.
__device__ void CopyBulk(void* shared, const void* global, int bytes, Barrier* barrier) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::
          "r"(SharedAddress(shared)),
      "l"(global), "r"(bytes), "r"(SharedAddress(barrier))
      : "memory");
}

// Of rows of 64 bytes, 8 of them together, with 64-byte swizzle.
__device__ uint64_t Describe(const void* shared) {
  const auto address = static_cast<uint64_t>(__cvta_generic_to_shared(shared));
  return (address & 0x3ffff) >> 4 | uint64_t{1} << 16 | uint64_t{512 >> 4} << 32 | uint64_t{2} << 62;
}

// A thread's weights of one group: outputs g and g + 8 of its warp's 16 (g = lane / 4), quads
// 4t … 4t + 3 (t = lane mod 4).
struct Pair {
  uint4 upper, lower;
};

// half: which 16 of the panel's outputs.
template <Encoding kEncoding>
__device__ Pair ReadWeights(const uint8_t* panel, int half, int lane) {
  const auto* from = reinterpret_cast<const uint4*>(panel) + lane;
  if constexpr (kEncoding == Encoding::kInt8) {
    return {from[half * 2 * kWarp], from[(half * 2 + 1) * kWarp]};
  } else {
    const uint4 h0 = from[0], h1 = from[kWarp];
    const int shift = half * 4;
    if constexpr (kEncoding == Encoding::kInt4) {
      const auto decode = [shift](uint32_t w) { return LowNibbles16(w >> shift); };
      return {ForWords(h0, decode), ForWords(h1, decode)};
    } else {
      const uint4 l0 = from[2 * kWarp], l1 = from[3 * kWarp];
      const auto decode = [shift](uint32_t h, uint32_t l) {
        return kEncoding == Encoding::kNested1 ? LowNested1(h >> shift, l >> shift)
                                               : Nested4(h >> shift, l >> shift);
      };
      return {ForWords(h0, l0, decode), ForWords(h1, l1, decode)};
    }
  }
}

struct Barriers {
  Barrier full[kStages], empty[kStages];
};

template <Encoding kEncoding>
__device__ void CopyStages(const Job& job, uint8_t* ring, Barriers& barriers, int32_t panel,
                           int64_t row, int32_t groups) {
  constexpr int kPlane = static_cast<int>(PlaneBytes(kEncoding));
  constexpr int kPlanes = IsNested(kEncoding) ? 2 : 1;
  const uint8_t* weights[kPanels];
#pragma unroll
  for (int p = 0; p < kPanels; ++p) {  // panels that do not exist: the last one again
    const int32_t of = min(panel + p, job.panels - 1);
    weights[p] = job.weight + int64_t{job.group_ptr[of]} * kPlane;
  }
  const int32_t first_group = job.group_ptr[panel];
  const int8_t* rows = job.codes + row * job.codes_stride;
  WaitForEarlierLaunch();
  int32_t next_quad = job.quad && groups > 0 ? job.quad[int64_t{first_group} * kGroupQuads] : 0;
  for (int32_t i = 0; i < groups; ++i) {
    const int stage = i % kStages;
    const int32_t group = job.quad ? next_quad / static_cast<int>(kGroupQuads) : i;
    if (job.quad && i + 1 < groups) {
      next_quad = job.quad[int64_t{first_group + i + 1} * kGroupQuads];
    }
    if (i >= kStages) WaitFor(&barriers.empty[stage], i / kStages % 2 ^ 1);
    Barrier* const full = &barriers.full[stage];
    uint8_t* to = ring + stage * kStageBytes<kEncoding>;
    ArriveAndExpect(full, kStageBytes<kEncoding>);
#pragma unroll
    for (int p = 0; p < kPanels; ++p) {
#pragma unroll
      for (int plane = 0; plane < kPlanes; ++plane) {
        CopyBulk(to, weights[p] + plane * job.plane_bytes + int64_t{i} * kPlane, kPlane, full);
        to += kPlane;
      }
    }
    CopyBulk(to, rows + int64_t{group} * kRowBytes, kRowBytes, full);
  }
}

template <Encoding kEncoding>
__device__ void Multiply(const Job& job, uint8_t* ring, Barriers& barriers, int32_t first_panel,
                         int64_t first_row, int32_t groups) {
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  const int panel_of_block = warp / 2, half = warp % 2;
  int32_t sum[2][kPart];
#pragma unroll
  for (int i = 0; i < kPart; ++i) sum[0][i] = sum[1][i] = 0;
  const auto step = [&](int32_t group, Pair& w) {
    const int at = group % kStages;
    const uint8_t* stage = ring + at * kStageBytes<kEncoding>;
    WaitFor(&barriers.full[at], group / kStages % 2);
    w = ReadWeights<kEncoding>(stage + panel_of_block * GroupBytes(kEncoding), half, lane);
    const uint64_t b = Describe(stage + kPanels * GroupBytes(kEncoding));
    constexpr uint64_t kNextInputs = 32 >> 4, kNextRows = kRowBytes / 2 >> 4;
    BeginProducts();
    MultiplyAddAsync(sum[0], w.upper.x, w.lower.x, w.upper.y, w.lower.y, b);
    MultiplyAddAsync(sum[1], w.upper.x, w.lower.x, w.upper.y, w.lower.y, b + kNextRows);
    MultiplyAddAsync(sum[0], w.upper.z, w.lower.z, w.upper.w, w.lower.w, b + kNextInputs);
    MultiplyAddAsync(sum[1], w.upper.z, w.lower.z, w.upper.w, w.lower.w,
                     b + kNextInputs + kNextRows);
    CommitProducts();
    WaitForProducts<1>();
    if (group > 0 && lane == 0) Arrive(&barriers.empty[(group - 1) % kStages]);
  };
  // Two sets of weights: products still read the ones of the group before.
  Pair even, odd;
  for (int32_t group = 0; group < groups; group += 2) {
    step(group, even);
    if (group + 1 < groups) step(group + 1, odd);
  }
  WaitForProducts<0>();
  SyncConsumers();

  // The tile takes the stages' place, turned round, so that whole rows of outputs are written.
  auto* const turned = reinterpret_cast<int32_t*>(ring);
#pragma unroll
  for (int i = 0; i < 2 * kPart; ++i) {
    const int row = i / 4 * 8 + lane % 4 * 2 + i % 2;
    const int output = warp * 16 + i % 4 / 2 * 8 + lane / 4;
    const int32_t t = sum[i / kPart][i % kPart];
    turned[row * kTileStride<kPanels> + output] = kEncoding == Encoding::kInt4 ? t >> 4 : t;
  }
  SyncConsumers();
  WriteTile<kPanels>(job, turned, first_panel, first_row,
                     static_cast<int>(min(int64_t{kRows}, job.rows - first_row)), warp, kWarps);
}

template <Encoding kEncoding>
__device__ void Product(const Job& job, uint8_t* shared) {
  const int warp = threadIdx.x / kWarp;
  auto& barriers = *reinterpret_cast<Barriers*>(shared);
  uint8_t* const ring = shared + kAlign;
  if (threadIdx.x == 0) {
    for (int s = 0; s < kStages; ++s) {
      InitBarrier(&barriers.full[s], 1);
      InitBarrier(&barriers.empty[s], kWarps);
    }
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  }
  __syncthreads();
  const int64_t row_tiles = (job.rows + kRows - 1) / kRows;
  const int32_t first_panel = job.tile_order[blockIdx.x / row_tiles] * kPanels;
  const int64_t first_row = blockIdx.x % row_tiles * kRows;
  const int32_t groups = job.group_ptr[first_panel + 1] - job.group_ptr[first_panel];
  // Registers go from the threads that copy to those that multiply.
  if (warp >= kWarps) {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 40;");
    if (threadIdx.x == kWarps * kWarp) {
      CopyStages<kEncoding>(job, ring, barriers, first_panel, first_row, groups);
    }
  } else {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 232;");
    WaitForEarlierLaunch();
    Multiply<kEncoding>(job, ring, barriers, first_panel, first_row, groups);
  }
}

#endif  // __CUDA_ARCH_FEAT_SM90_ALL

template <Encoding kEncoding>
__global__ void __launch_bounds__(kThreads, 1)
    PrefillSm90Kernel([[maybe_unused]] const __grid_constant__ Job job) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  extern __shared__ __align__(kAlign) uint4 shared[];
  LetNextLaunchStart();
  Product<kEncoding>(job, reinterpret_cast<uint8_t*>(shared));
#endif
}

template <Encoding kEncoding>
cudaError_t LaunchOne(const Job& job, const Launch& launch) {
  const auto kernel = PrefillSm90Kernel<kEncoding>;
  constexpr int kTurned = kRows * kTileStride<kPanels> * 4;
  constexpr int kRing = kStages * kStageBytes<kEncoding>;
  constexpr int kShared = kAlign + (kRing > kTurned ? kRing : kTurned);
  static const cudaError_t allowed =
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kShared);
  if (allowed != cudaSuccess) return allowed;
  const int64_t blocks =
      (job.panels + kPanels - 1) / kPanels * ((job.rows + kRows - 1) / kRows);
  cudaLaunchAttribute overlap{};
  overlap.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  overlap.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(blocks));
  config.blockDim = dim3(kThreads);
  config.dynamicSmemBytes = kShared;
  config.stream = launch.stream;
  config.attrs = &overlap;
  config.numAttrs = 1;
  return cudaLaunchKernelEx(&config, kernel, job);
}

}  // namespace

cudaError_t LaunchPrefillSm90(const Job& job, const Launch& launch) noexcept {
  switch (launch.encoding) {
    case Encoding::kInt8:
      return LaunchOne<Encoding::kInt8>(job, launch);
    case Encoding::kInt4:
      return LaunchOne<Encoding::kInt4>(job, launch);
    case Encoding::kNested1:
      return LaunchOne<Encoding::kNested1>(job, launch);
    default:
      return LaunchOne<Encoding::kNested4>(job, launch);
  }
}

}  // namespace sparsefuse::cuda

// Many rows on compute capability 9.0: the product of prefill.cu by the instructions of that
// generation, which read the activations from shared memory themselves, a warp group (4 warps) at a
// time. Weights stay packed until a warp has its 16 outputs in registers.
//
//             256 rows of X              Two warp groups, 64 outputs (2 panels) each; every warp holds
//           ┌──────────────┐             16 outputs × 256 rows of sums. Activations come with the
//   group 0 │ 64 outputs   │             quads of every 64 inputs in the order of a transposed 4 × 4
//   group 1 │ 64 outputs   │             matrix (QuantizeJob::transposed), which is the order in
//           └──────────────┘             which a thread meets the weights of layout 1.

#include "kernels/cuda/device.cuh"

namespace sparsefuse::cuda {
namespace {

constexpr int kPanels = 4, kRows = 256, kThreads = 256;
constexpr int kRowBytes = kRows * kGroupInputs;
constexpr int kPart = 64;  // sums of one product: 64 outputs × 128 rows, a thread's share

template <Encoding kEncoding>
constexpr int kStageBytes = kPanels * static_cast<int>(GroupBytes(kEncoding)) + kRowBytes;
constexpr int kStages = 6;

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
// What this thread wrote to shared memory becomes visible to products.
__device__ void ShowToProducts() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

// Where the 16-byte piece of a row lies among the 64 bytes of each: pieces of neighbouring pairs of
// rows change places ("64-byte swizzle"), so that neither side hits a bank twice.
__device__ int Swizzled(int row, int piece) { return row * 4 + (piece ^ row / 2 % 4); }
// 8 rows of so many bytes lie together: 512.
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

// Copies groups of weights and activations into stages.
template <Encoding kEncoding>
class Copier {
 public:
  __device__ Copier(const Job& job, int32_t panel, int64_t row) : job_(job) {
    const int32_t first = job.group_ptr[panel];
    next_ = first;
    end_ = job.group_ptr[panel + 1];
    first_ = first;
#pragma unroll
    for (int i = 0; i < kWeightCopies; ++i) {
      const int piece = threadIdx.x + i * kThreads;
      const int of_panel = piece / kPanelPieces, plane = piece / kPlanePieces % kPlanes;
      const int32_t p = min(panel + of_panel, job.panels - 1);
      weight_[i] = job.weight + plane * job.plane_bytes +
                   int64_t{job.group_ptr[p]} * PlaneBytes(kEncoding) + piece % kPlanePieces * 16;
    }
#pragma unroll
    for (int i = 0; i < kRowCopies; ++i) {
      const int piece = threadIdx.x + i * kThreads;
      const int64_t r = min(row + piece / 4, job.rows - 1);
      row_[i] = job.codes + r * job.codes_stride + piece % 4 * 16;
    }
    quad_ = Quad(next_);
  }
  __device__ int32_t groups() const { return end_ - first_; }

  // The next group, if there is one. Rows that do not exist are copies of the last one.
  __device__ void Copy(uint8_t* stage) {
    if (next_ < end_) {
      const int64_t offset = int64_t{next_ - first_} * PlaneBytes(kEncoding);
#pragma unroll
      for (int i = 0; i < kWeightCopies; ++i) {
        CopyAsync16(stage + (threadIdx.x + i * kThreads) * 16, weight_[i] + offset);
      }
      uint8_t* const rows = stage + kPanels * GroupBytes(kEncoding);
#pragma unroll
      for (int i = 0; i < kRowCopies; ++i) {
        const int piece = threadIdx.x + i * kThreads;
        CopyAsync16(rows + Swizzled(piece / 4, piece % 4) * 16, row_[i] + quad_ * 4);
      }
      ++next_;
      quad_ = Quad(next_);
    }
    CommitCopies();
  }

 private:
  static constexpr int kPlanes = IsNested(kEncoding) ? 2 : 1;
  static constexpr int kPlanePieces = static_cast<int>(PlaneBytes(kEncoding)) / 16;
  static constexpr int kPanelPieces = kPlanes * kPlanePieces;
  static constexpr int kWeightCopies = kPanels * kPanelPieces / kThreads;
  static constexpr int kRowCopies = kRowBytes / 16 / kThreads;

  __device__ int32_t Quad(int32_t group) const {  // the first one
    if (!job_.quad) return (group - first_) * kGroupQuads;
    return group < end_ ? job_.quad[int64_t{group} * kGroupQuads] : 0;
  }

  const Job& job_;
  int32_t first_, next_, end_, quad_;
  const uint8_t* weight_[kWeightCopies];
  const int8_t* row_[kRowCopies];
};

template <Encoding kEncoding>
__device__ void Product(const Job& job, uint8_t* ring) {
  constexpr int kStage = kStageBytes<kEncoding>;
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  const int panel_of_block = warp / 2, half = warp % 2;
  const int64_t row_tiles = (job.rows + kRows - 1) / kRows;
  const int32_t first_panel = job.tile_order[blockIdx.x / row_tiles] * kPanels;
  const int64_t first_row = blockIdx.x % row_tiles * kRows;
  Copier<kEncoding> copier(job, first_panel, first_row);
  WaitForEarlierLaunch();
  // One stage fewer than there are ahead: the products of the group before may still read theirs.
  for (int s = 0; s < kStages - 2; ++s) copier.Copy(ring + s * kStage);

  int32_t sum[2][kPart];
#pragma unroll
  for (int i = 0; i < kPart; ++i) sum[0][i] = sum[1][i] = 0;
  const int32_t groups = copier.groups();
  int read = 0, write = kStages - 2;
  const auto step = [&](Pair& w) {
    WaitForCopies<kStages - 3>();
    ShowToProducts();
    __syncthreads();
    const uint8_t* stage = ring + read * kStage;
    w = ReadWeights<kEncoding>(stage + panel_of_block * GroupBytes(kEncoding), half, lane);
    copier.Copy(ring + write * kStage);
    const uint8_t* rows = stage + kPanels * GroupBytes(kEncoding);
    const uint64_t b = Describe(rows);
    constexpr uint64_t kNextInputs = 32 >> 4, kNextRows = kRowBytes / 2 >> 4;
    BeginProducts();
    MultiplyAddAsync(sum[0], w.upper.x, w.lower.x, w.upper.y, w.lower.y, b);
    MultiplyAddAsync(sum[1], w.upper.x, w.lower.x, w.upper.y, w.lower.y, b + kNextRows);
    MultiplyAddAsync(sum[0], w.upper.z, w.lower.z, w.upper.w, w.lower.w, b + kNextInputs);
    MultiplyAddAsync(sum[1], w.upper.z, w.lower.z, w.upper.w, w.lower.w,
                     b + kNextInputs + kNextRows);
    CommitProducts();
    WaitForProducts<1>();
    read = read + 1 == kStages ? 0 : read + 1;
    write = write + 1 == kStages ? 0 : write + 1;
  };
  Pair even, odd;
  for (int32_t group = 0; group < groups; group += 2) {
    step(even);
    if (group + 1 < groups) step(odd);
  }
  WaitForProducts<0>();
  WaitForCopies<0>();
  __syncthreads();

  // The tile takes the stages' place, turned round, so that whole rows of outputs are written.
  auto* const turned = reinterpret_cast<int32_t*>(ring);
#pragma unroll
  for (int i = 0; i < 2 * kPart; ++i) {
    const int row = i / 4 * 8 + lane % 4 * 2 + i % 2;
    const int output = warp * 16 + i % 4 / 2 * 8 + lane / 4;
    const int32_t t = sum[i / kPart][i % kPart];
    turned[row * kTileStride<kPanels> + output] = kEncoding == Encoding::kInt4 ? t >> 4 : t;
  }
  __syncthreads();
  WriteTile<kPanels>(job, turned, first_panel, first_row,
                     static_cast<int>(min(int64_t{kRows}, job.rows - first_row)), warp,
                     kThreads / kWarp);
}

#endif  // __CUDA_ARCH_FEAT_SM90_ALL

template <Encoding kEncoding>
__global__ void __launch_bounds__(kThreads, 1)
    PrefillSm90Kernel([[maybe_unused]] const __grid_constant__ Job job) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  extern __shared__ __align__(1024) uint4 shared[];
  LetNextLaunchStart();
  Product<kEncoding>(job, reinterpret_cast<uint8_t*>(shared));
#endif
}

template <Encoding kEncoding>
cudaError_t LaunchOne(const Job& job, const Launch& launch) {
  const auto kernel = PrefillSm90Kernel<kEncoding>;
  constexpr int kTurned = kRows * kTileStride<kPanels> * 4;
  constexpr int kShared =
      kStages * kStageBytes<kEncoding> > kTurned ? kStages * kStageBytes<kEncoding> : kTurned;
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

#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/prefill_sm90.cuh"

namespace sparsefuse::cuda {
namespace {

template <Encoding kEncoding, typename T>
__global__ void __launch_bounds__(prefill_sm90::kThreads, 1)
    PrefillSm90Kernel([[maybe_unused]] const __grid_constant__ Job job) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  prefill_sm90::Product<kEncoding, T>(job);
#else
  __trap();  // code for other cards, which never get here
#endif
}

template <Encoding kEncoding, typename T>
cudaError_t LaunchOne(const Job& job, const Launch& launch) {
  static_assert(!T::kManyScales || T::kGroupHalves == 1);  // else registers do not suffice
  const auto kernel = PrefillSm90Kernel<kEncoding, T>;
  constexpr int kShared = prefill_sm90::kSharedOf<kEncoding, T>;
  static_assert(kShared <= 227 << 10);
  const int64_t blocks =
      (job.panels + T::kPanels - 1) / T::kPanels * ((job.rows + T::kRows - 1) / T::kRows);
  return LaunchKernel(kernel, launch.made.prefill, blocks, prefill_sm90::kThreads, kShared,
                      launch.overlaps, launch.stream, job);
}

template <Encoding kEncoding>
cudaError_t LaunchTileSm90(const Job& job, const Launch& launch) {
  if (job.groups_per_scale > 0) return LaunchOne<kEncoding, prefill_sm90::Scaled>(job, launch);
  return launch.shared_panels == 4 ? LaunchOne<kEncoding, prefill_sm90::Wide>(job, launch)
                                   : LaunchOne<kEncoding, prefill_sm90::Narrow>(job, launch);
}

}  // namespace

cudaError_t LaunchPrefillSm90(const Job& job, const Launch& launch) noexcept {
  return WithEncoding(launch.encoding,
                      [&]<Encoding kEncoding>() { return LaunchTileSm90<kEncoding>(job, launch); });
}

}  // namespace sparsefuse::cuda

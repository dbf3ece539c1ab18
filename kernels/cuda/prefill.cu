#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/prefill.cuh"

namespace sparsefuse::cuda {
namespace {

template <Encoding kEncoding, typename T, bool kGather>
__global__ void __launch_bounds__(T::kThreads) PrefillKernel(const __grid_constant__ Job job) {
  prefill::Product<kEncoding, T, kGather>(job);
}

template <Encoding kEncoding, typename T, bool kGather>
cudaError_t LaunchOne(const Job& job, const Launch& launch) {
  const auto kernel = PrefillKernel<kEncoding, T, kGather>;
  constexpr int kShared = prefill::kSharedOf<kEncoding, T>;
  static_assert(kShared <= 99 << 10);  // what the smallest multiprocessors have
  const int64_t blocks =
      (job.panels + T::kPanels - 1) / T::kPanels * ((job.rows + T::kRows - 1) / T::kRows);
  return LaunchKernel(kernel, launch.made.prefill, blocks, T::kThreads, kShared, false,
                      launch.stream, job);
}

template <Encoding kEncoding>
cudaError_t LaunchTile(const Job& job, const Launch& launch) {
  if (job.groups_per_scale > 0) {
    return launch.gathers || launch.shared_panels < 4
               ? LaunchOne<kEncoding, prefill::ScaledSingle, true>(job, launch)
               : LaunchOne<kEncoding, prefill::ScaledWide, false>(job, launch);
  }
  switch (launch.shared_panels) {
    case 4:
      return LaunchOne<kEncoding, prefill::Wide, false>(job, launch);
    case 2:
      return LaunchOne<kEncoding, prefill::Narrow, false>(job, launch);
    default:
      return LaunchOne<kEncoding, prefill::Single, true>(job, launch);
  }
}

}  // namespace

cudaError_t LaunchPrefill(const Job& job, const Launch& launch) noexcept {
  return WithEncoding(launch.encoding,
                      [&]<Encoding kEncoding>() { return LaunchTile<kEncoding>(job, launch); });
}

}  // namespace sparsefuse::cuda

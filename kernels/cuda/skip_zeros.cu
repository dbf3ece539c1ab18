#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/skip_zeros.cuh"

namespace sparsefuse::cuda {
namespace {

template <Encoding kEncoding>
__global__ void CopyWeightsKernel(const uint8_t* weight, int32_t panels, int32_t groups_per_panel,
                                  int64_t inputs, int64_t count, uint32_t* input_words) {
  const int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i >= count) return;
  const int64_t input = i / kWarp;
  input_words[i] = skip::InputWord<kEncoding>(weight, panels, groups_per_panel, input / inputs,
                                              input % inputs, static_cast<int>(i % kWarp));
}

template <Encoding kEncoding, int kRows>
__global__ void __launch_bounds__(skip::kThreads)
    SkipKernel(const __grid_constant__ Job job, const __grid_constant__ Skip skip) {
  extern __shared__ uint4 shared[];
  skip::Span<kEncoding, kRows>(job, skip,
                               *reinterpret_cast<skip::Shared<kEncoding, kRows>*>(shared));
}

template <Encoding kEncoding, int kRows>
cudaError_t LaunchOne(const Job& job, const Skip& skip, const Launch& launch) {
  return LaunchKernel(SkipKernel<kEncoding, kRows>, nullptr,
                      int64_t{skip.shape.strips} * skip.shape.spans(), skip::kThreads,
                      sizeof(skip::Shared<kEncoding, kRows>), launch.overlaps, launch.stream, job,
                      skip);
}

template <Encoding kEncoding>
cudaError_t LaunchRows(const Job& job, const Skip& skip, const Launch& launch) {
  if (job.rows == 1) return LaunchOne<kEncoding, 1>(job, skip, launch);
  if (job.rows <= 4) return LaunchOne<kEncoding, 4>(job, skip, launch);
  if (job.rows <= 8) return LaunchOne<kEncoding, 8>(job, skip, launch);
  return LaunchOne<kEncoding, kDecodeRows>(job, skip, launch);
}

}  // namespace

cudaError_t LaunchCopyWeights(const LinearShape& shape, const uint8_t* weight,
                              uint32_t* input_words, cudaStream_t stream) noexcept {
  constexpr int64_t kThreads = 256;
  const int64_t count = SkipShapeOf(shape).words();
  const auto launch = [&](auto kernel) {
    return LaunchKernel(kernel, nullptr, (count + kThreads - 1) / kThreads, kThreads, 0, false,
                        stream, weight, static_cast<int32_t>(shape.panels()),
                        static_cast<int32_t>(GroupsPerPanel(shape.inputs)), shape.inputs, count,
                        input_words);
  };
  return shape.encoding == Encoding::kInt8 ? launch(CopyWeightsKernel<Encoding::kInt8>)
                                           : launch(CopyWeightsKernel<Encoding::kInt4>);
}

cudaError_t LaunchSkip(const Job& job, const Skip& skip, const Launch& launch) noexcept {
  return launch.encoding == Encoding::kInt8 ? LaunchRows<Encoding::kInt8>(job, skip, launch)
                                            : LaunchRows<Encoding::kInt4>(job, skip, launch);
}

}  // namespace sparsefuse::cuda

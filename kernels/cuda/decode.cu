#include "kernels/cuda/decode.cuh"
#include "kernels/cuda/launch.cuh"

namespace sparsefuse::cuda {
namespace {

template <Encoding kEncoding, int kTiles, bool kManyScales, Room kRoom>
__global__ void __launch_bounds__(decode::kThreads,
                                  kRoom == Room::kLarge ? decode::kBlocksPerMultiprocessor : 1)
    DecodeKernel(const __grid_constant__ Job job, bool gathers) {
  decode::Slice<kEncoding, kTiles, kManyScales, kRoom>(job, gathers);
}

template <Encoding kEncoding, int kTiles, bool kManyScales, Room kRoom = Room::kLarge>
cudaError_t LaunchOne(const Job& job, const Launch& launch) {
  // Half of the kernels leave enough of the large room to be those of the small one, too.
  constexpr size_t kShared = decode::kSharedOf<kEncoding, kTiles, kRoom>;
  if constexpr (kShared > RoomBytes(Room::kSmall)) {
    if (launch.room == Room::kSmall) {
      return LaunchOne<kEncoding, kTiles, kManyScales, Room::kSmall>(job, launch);
    }
  }
  const auto kernel = DecodeKernel<kEncoding, kTiles, kManyScales, kRoom>;
  const cudaKernel_t made = kTiles == 1 ? launch.made.decode8 : launch.made.decode16;
  return LaunchKernel(kernel, made, launch.workers, decode::kThreads, static_cast<int>(kShared),
                      launch.overlaps, launch.stream, job, launch.gathers);
}

template <Encoding kEncoding>
cudaError_t LaunchRows(const Job& job, const Launch& launch) {
  const bool many = job.groups_per_scale > 0;
  if (job.rows <= decode::kTileRows) {
    return many ? LaunchOne<kEncoding, 1, true>(job, launch)
                : LaunchOne<kEncoding, 1, false>(job, launch);
  }
  return many ? LaunchOne<kEncoding, 2, true>(job, launch)
              : LaunchOne<kEncoding, 2, false>(job, launch);
}

}  // namespace

cudaError_t LaunchDecode(const Job& job, const Launch& launch) noexcept {
  return WithEncoding(launch.encoding,
                      [&]<Encoding kEncoding>() { return LaunchRows<kEncoding>(job, launch); });
}

}  // namespace sparsefuse::cuda

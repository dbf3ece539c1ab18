// kernels/cuda/launch.cuh for threads_on_host.h: a launch has run when it returns.

#ifndef SPARSEFUSE_TESTS_CUDA_ON_HOST_LAUNCH_ON_HOST_H_
#define SPARSEFUSE_TESTS_CUDA_ON_HOST_LAUNCH_ON_HOST_H_

#ifdef SPARSEFUSE_KERNELS_CUDA_LAUNCH_CUH_
#error "include this before the kernels"
#endif
#define SPARSEFUSE_KERNELS_CUDA_LAUNCH_CUH_

#include <cuda_runtime_api.h>

#include <numeric>

#include "tests/cuda_on_host/ptx_on_host.h"

namespace sparsefuse::cuda {

// What kernels declare as `extern __shared__`, by their namespace.
inline constexpr size_t kSharedWords = 227 << 6;  // of 16 bytes: a block's most
namespace decode {
uint4 shared[kSharedWords];
}
namespace prefill {
uint4 shared[kSharedWords];
}
namespace prefill_sm90 {
alignas(1024) uint4 memory[kSharedWords];
}
namespace {
uint4 shared[kSharedWords];
}
inline std::span<uint8_t> AsBytes(uint4* words) {
  return {reinterpret_cast<uint8_t*>(words), kSharedWords * sizeof(uint4)};
}

template <typename... Parameters, typename... Arguments>
cudaError_t LaunchKernel(void (*kernel)(Parameters...), cudaKernel_t made, int64_t blocks,
                         int64_t threads, int shared_bytes, bool, cudaStream_t,
                         const Arguments&... arguments) {
  const std::span<uint8_t> memories[] = {AsBytes(decode::shared), AsBytes(prefill::shared),
                                         AsBytes(prefill_sm90::memory), AsBytes(shared)};
  auto* const program = made ? reinterpret_cast<void (*)(Parameters...)>(made) : kernel;
  if (threads % 32 != 0 || threads > kMostThreads ||
      static_cast<size_t>(shared_bytes) > memories[0].size()) {
    return cudaErrorInvalidValue;
  }
  std::vector<int> order(static_cast<size_t>(blocks));
  std::iota(order.begin(), order.end(), 0);
  if (test::last_first) std::reverse(order.begin(), order.end());
  // Nobody clears it on a GPU, either.
  const uint8_t unset = test::last_first ? 0 : 0x55;
  const test::LaunchOnHost launch = {
      .program =
          [&] {
            OfThread() = {};
            program(arguments...);
          },
      .clean =
          [&] {
            for (const std::span<uint8_t> memory : memories) std::ranges::fill(memory, unset);
          },
      .keep =
          [&] {
            std::vector<std::vector<uint8_t>> kept;
            for (const std::span<uint8_t> memory : memories) {
              kept.emplace_back(memory.begin(), memory.end());
            }
            auto kept_asked = std::exchange(asked, std::vector<Asked>(kMostThreads));
            return [&, kept = std::move(kept), kept_asked = std::move(kept_asked)]() mutable {
              for (size_t i = 0; i < kept.size(); ++i) {
                std::ranges::copy(kept[i], memories[i].begin());
              }
              asked = std::move(kept_asked);
            };
          }};
  test::RunBlocks(order, static_cast<int>(threads), launch);
  for (const std::span<uint8_t> memory : memories) {
    for (const uint8_t byte : memory.subspan(static_cast<size_t>(shared_bytes))) {
      if (byte != unset) return cudaErrorIllegalAddress;  // written beyond what was asked for
    }
  }
  return cudaSuccess;
}

}  // namespace sparsefuse::cuda

#endif  // SPARSEFUSE_TESTS_CUDA_ON_HOST_LAUNCH_ON_HOST_H_

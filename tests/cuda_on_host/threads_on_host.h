// Blocks of CUDA's threads as threads of the host, one block after the other, and what device code
// calls, but PTX (ptx_on_host.h): what it does in memory is real, its speed and the device's memory
// model are not. Include before the device code.

#ifndef SPARSEFUSE_TESTS_CUDA_ON_HOST_THREADS_ON_HOST_H_
#define SPARSEFUSE_TESTS_CUDA_ON_HOST_THREADS_ON_HOST_H_

#include <algorithm>
#include <array>
#include <atomic>
#include <barrier>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#include <span>
#include <thread>
#include <vector>

using std::max;
using std::min;

struct IndexOnHost {
  int x, y, z;
};
inline thread_local IndexOnHost threadIdx, blockIdx, blockDim, gridDim;

namespace sparsefuse::test {

// What the lanes of a warp show each other. There are two boards, used in turn, so that one barrier
// a time is enough: nobody is two times ahead.
struct WarpOnHost {
  using Board = std::array<std::array<std::byte, 32>, 32>;  // by lane
  std::barrier<> barrier{32};
  std::array<Board, 2> boards{};
};
inline constexpr int kFirstThreads = 256;  // that may meet without the others
inline std::unique_ptr<std::barrier<>> threads_of_block, first_threads_of_block;
inline std::vector<std::unique_ptr<WarpOnHost>> warps_of_block;
inline thread_local size_t times_shown = 0;

inline WarpOnHost& ThisWarp() { return *warps_of_block[static_cast<size_t>(threadIdx.x / 32)]; }

// Shows a value to the warp's other lanes; `at` of the result is lane `at`'s.
template <typename T>
class Shown {
 public:
  explicit Shown(const T& value) : board_(ThisWarp().boards[times_shown++ % 2]) {
    static_assert(sizeof(T) <= 32);
    std::memcpy(board_[static_cast<size_t>(threadIdx.x % 32)].data(), &value, sizeof value);
    ThisWarp().barrier.arrive_and_wait();
  }
  T at(int lane) const {
    T value;
    std::memcpy(&value, board_[static_cast<size_t>(lane)].data(), sizeof value);
    return value;
  }

 private:
  WarpOnHost::Board& board_;
};

// Every thread of the blocks, which come in this order, runs `program`; before each block `clean`
// runs once.
template <typename Clean, typename Program>
void RunBlocks(std::span<const int> blocks, int threads, const Clean& clean,
               const Program& program) {
  threads_of_block = std::make_unique<std::barrier<>>(threads);
  first_threads_of_block = std::make_unique<std::barrier<>>(kFirstThreads);
  warps_of_block.clear();
  for (int w = 0; w < (threads + 31) / 32; ++w) {
    warps_of_block.push_back(std::make_unique<WarpOnHost>());
  }
  std::vector<std::thread> running;
  for (int t = 0; t < threads; ++t) {
    running.emplace_back([&, t] {
      threadIdx = {t, 0, 0};
      blockDim = {threads, 1, 1};
      gridDim = {static_cast<int>(blocks.size()), 1, 1};
      for (const int block : blocks) {
        blockIdx = {block, 0, 0};
        if (t == 0) clean();
        threads_of_block->arrive_and_wait();
        program();
        threads_of_block->arrive_and_wait();
      }
    });
  }
  for (std::thread& thread : running) thread.join();
}

}  // namespace sparsefuse::test

inline void __syncthreads() { sparsefuse::test::threads_of_block->arrive_and_wait(); }
inline void __syncwarp() { sparsefuse::test::ThisWarp().barrier.arrive_and_wait(); }
inline void __threadfence() { std::atomic_thread_fence(std::memory_order_seq_cst); }

// The masks are those of whole warps.
template <typename T>
T __shfl_sync(unsigned, T value, int from, int width = 32) {
  const int lane = threadIdx.x % 32;
  return sparsefuse::test::Shown(value).at(lane / width * width + from % width);
}
template <typename T>
T __shfl_xor_sync(unsigned, T value, int step) {
  return sparsefuse::test::Shown(value).at(threadIdx.x % 32 ^ step);
}
inline bool __any_sync(unsigned, bool value) {
  const sparsefuse::test::Shown shown(value);
  bool any = false;
  for (int lane = 0; lane < 32; ++lane) any |= shown.at(lane);
  return any;
}

template <typename T>
T atomicAdd(T* to, T value) {
  return std::atomic_ref(*to).fetch_add(value);
}
template <typename T>
T __ldg(const T* from) {
  return *from;
}
template <typename T>
T __ldcg(const T* from) {
  return *from;
}
template <typename T>
void __stcg(T* to, T value) {
  *to = value;
}
inline int __float2int_rn(float value) { return static_cast<int>(std::nearbyint(value)); }
// Byte i of the result: the one of a's and b's eight that nibble i of `selector` names.
inline uint32_t __byte_perm(uint32_t a, uint32_t b, uint32_t selector) {
  const uint64_t bytes = uint64_t{b} << 32 | a;
  uint32_t result = 0;
  for (int i = 0; i < 4; ++i) {
    result |= static_cast<uint32_t>(bytes >> 8 * (selector >> 4 * i & 7) & 0xff) << 8 * i;
  }
  return result;
}
inline int32_t __dp4a(int32_t a, int32_t b, int32_t sum) {
  for (int i = 0; i < 4; ++i) {
    sum += static_cast<int8_t>(static_cast<uint32_t>(a) >> 8 * i) *
           static_cast<int8_t>(static_cast<uint32_t>(b) >> 8 * i);
  }
  return sum;
}

#endif  // SPARSEFUSE_TESTS_CUDA_ON_HOST_THREADS_ON_HOST_H_

// Blocks of CUDA's threads as threads of the host, one block after the other, for device code that
// holds no PTX: what it does in memory is real, its speed and the device's memory model are not.
// Include before the device code.

#ifndef SPARSEFUSE_TESTS_KERNELS_CUDA_THREADS_ON_HOST_H_
#define SPARSEFUSE_TESTS_KERNELS_CUDA_THREADS_ON_HOST_H_

#include <algorithm>
#include <atomic>
#include <barrier>
#include <cmath>
#include <cstdint>
#include <memory>
#include <span>
#include <thread>
#include <vector>

using std::max;
using std::min;

struct IndexOnHost {
  int x, y, z;
};
inline thread_local IndexOnHost threadIdx, blockIdx;
inline std::unique_ptr<std::barrier<>> threads_of_block;

inline void __syncthreads() { threads_of_block->arrive_and_wait(); }
inline void __threadfence() { std::atomic_thread_fence(std::memory_order_seq_cst); }
inline int32_t atomicAdd(int32_t* to, int32_t value) {
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

namespace sparsefuse::test {

// Every thread of the blocks, which come in this order, runs `program`.
template <typename Program>
void RunBlocks(std::span<const int> blocks, int threads, const Program& program) {
  threads_of_block = std::make_unique<std::barrier<>>(threads);
  std::vector<std::thread> running;
  for (int t = 0; t < threads; ++t) {
    running.emplace_back([&, t] {
      threadIdx = {t, 0, 0};
      for (const int block : blocks) {
        blockIdx = {block, 0, 0};
        program();
        __syncthreads();
      }
    });
  }
  for (std::thread& thread : running) thread.join();
}

}  // namespace sparsefuse::test

#endif  // SPARSEFUSE_TESTS_KERNELS_CUDA_THREADS_ON_HOST_H_

// kernels/cuda/ptx.cuh for threads_on_host.h, after NVIDIA's description of the instructions.
// Copies arrive as late as they may, or at once: a kernel must give the same either way.

#ifndef SPARSEFUSE_TESTS_CUDA_ON_HOST_PTX_ON_HOST_H_
#define SPARSEFUSE_TESTS_CUDA_ON_HOST_PTX_ON_HOST_H_

#ifdef SPARSEFUSE_KERNELS_CUDA_PTX_CUH_
#error "include this before the kernels"
#endif
#define SPARSEFUSE_KERNELS_CUDA_PTX_CUH_

#include <cstring>
#include <deque>
#include <vector>

#include "tests/cuda_on_host/threads_on_host.h"

namespace sparsefuse::cuda {

// --- Copies from global to shared memory ---

struct CopyOnHost {
  void* to;
  const void* from;  // null: zeros
  size_t bytes;
  void Do() const {
    if (from) {
      std::memcpy(to, from, bytes);
    } else {
      std::memset(to, 0, bytes);
    }
  }
};
inline bool copies_are_late = true;
inline thread_local std::vector<CopyOnHost> uncommitted;
inline thread_local std::deque<std::vector<CopyOnHost>> committed;

inline void Copy(const CopyOnHost& copy) {
  if (!copies_are_late) copy.Do();
  uncommitted.push_back(copy);
}
inline void CopyAsync16(void* shared, const void* global) { Copy({shared, global, 16}); }
inline void CopyAsync4(void* shared, const void* global) { Copy({shared, global, 4}); }
inline void CopyAsync16OrZero(void* shared, const void* global, bool copy) {
  Copy({shared, copy ? global : nullptr, 16});
}
inline void CopyAsync4OrZero(void* shared, const void* global, bool copy) {
  Copy({shared, copy ? global : nullptr, 4});
}
inline void CommitCopies() {
  committed.push_back(std::move(uncommitted));
  uncommitted.clear();
}
template <int kPending>
void WaitForCopies() {
  while (committed.size() > kPending) {
    if (copies_are_late) {
      for (const CopyOnHost& copy : committed.front()) copy.Do();
    }
    committed.pop_front();
  }
}

// --- Barriers ---

// Arrivals that this phase still lacks (16 bits), those of every phase (16 bits), complete phases.
using Barrier = uint64_t;

inline void InitBarrier(Barrier* barrier, int arrivals) {
  const auto count = static_cast<uint64_t>(arrivals);
  std::atomic_ref(*barrier).store(count << 16 | count);
}
inline void Arrive(Barrier* barrier) {
  std::atomic_ref<Barrier> word(*barrier);
  Barrier before = word.load(), after;
  do {
    const Barrier all = before >> 16 & 0xffff, phase = before >> 32;
    after = (before & 0xffff) == 1 ? (phase + 1) << 32 | all << 16 | all : before - 1;
  } while (!word.compare_exchange_weak(before, after));
  if (after >> 32 != before >> 32) word.notify_all();
}
inline void WaitFor(Barrier* barrier, int parity) {
  const std::atomic_ref<Barrier> word(*barrier);
  for (Barrier now = word.load(); static_cast<int>(now >> 32 & 1) == parity; now = word.load()) {
    word.wait(now);
  }
}

// --- Products ---

// Lane 4g + t holds of a rows g and g + 8, of b column g, in words of the four inputs from 4t
// (a0, a1, b0) and from 4t + 16 (a2, a3, b1) on; of the sums columns 2t and 2t + 1 of row g, then
// of row g + 8.
inline void MultiplyAdd(int32_t (&sum)[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3,
                        uint32_t b0, uint32_t b1) {
  const test::Shown words(std::array{a0, a1, a2, a3, b0, b1});
  const int lane = threadIdx.x % 32;
  for (int i = 0; i < 4; ++i) {
    for (int t = 0; t < 4; ++t) {
      const auto a = words.at(lane / 4 * 4 + t);
      const auto b = words.at((lane % 4 * 2 + i % 2) * 4 + t);
      const auto half = static_cast<size_t>(i / 2);
      sum[i] = __dp4a(static_cast<int32_t>(a[half]), static_cast<int32_t>(b[4]), sum[i]);
      sum[i] = __dp4a(static_cast<int32_t>(a[half + 2]), static_cast<int32_t>(b[5]), sum[i]);
    }
  }
}

}  // namespace sparsefuse::cuda

#endif  // SPARSEFUSE_TESTS_CUDA_ON_HOST_PTX_ON_HOST_H_

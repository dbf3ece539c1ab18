// kernels/cuda/ptx.cuh and ptx_sm90.cuh for threads_on_host.h, after NVIDIA's description of the
// instructions. Copies arrive as late as they may, or at once: a kernel must give the same either
// way.

#ifndef SPARSEFUSE_TESTS_CUDA_ON_HOST_PTX_ON_HOST_H_
#define SPARSEFUSE_TESTS_CUDA_ON_HOST_PTX_ON_HOST_H_

#ifdef SPARSEFUSE_KERNELS_CUDA_PTX_CUH_
#error "include this before the kernels"
#endif
#define SPARSEFUSE_KERNELS_CUDA_PTX_CUH_
#define SPARSEFUSE_KERNELS_CUDA_PTX_SM90_CUH_

#include <array>
#include <cstring>
#include <deque>
#include <utility>
#include <vector>

#include "tests/cuda_on_host/threads_on_host.h"

namespace sparsefuse::cuda {

// --- What a thread has asked for and not waited for ---

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
struct ProductOnHost {
  int32_t* sum;
  std::array<uint32_t, 4> a[4];  // a0 … a3 of lanes 4g … 4g + 3
  const uint8_t* b;
};

struct Asked {
  std::vector<CopyOnHost> uncommitted;
  std::deque<std::vector<CopyOnHost>> committed;
  std::vector<ProductOnHost> begun;
  std::deque<std::vector<ProductOnHost>> products;
};
inline constexpr int kMostThreads = 1024;  // of a block
inline std::vector<Asked> asked(kMostThreads);
inline Asked& OfThread() { return asked[static_cast<size_t>(threadIdx.x)]; }

// --- Copies from global to shared memory ---

inline bool copies_are_late = true;

inline void Copy(const CopyOnHost& copy) {
  if (!copies_are_late) copy.Do();
  OfThread().uncommitted.push_back(copy);
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
  OfThread().committed.push_back(std::exchange(OfThread().uncommitted, {}));
}
template <int kPending>
void WaitForCopies() {
  for (auto& groups = OfThread().committed; groups.size() > kPending; groups.pop_front()) {
    if (!copies_are_late) continue;
    for (const CopyOnHost& copy : groups.front()) copy.Do();
  }
}

// --- Barriers ---

// What this phase lacks of arrivals (12 bits), the arrivals of every phase (12), what this phase
// lacks of bytes (24), complete phases (16).
using Barrier = uint64_t;
inline constexpr int kAllAt = 12, kBytesAt = 24, kPhaseAt = 48;

inline void InitBarrier(Barrier* barrier, int arrivals) {
  const auto count = static_cast<uint64_t>(arrivals);
  *barrier = count << kAllAt | count;
}
inline void Change(Barrier* barrier, uint64_t arrived, uint64_t expected, uint64_t came) {
  const Barrier now = *barrier - arrived + (expected << kBytesAt) - (came << kBytesAt);
  const Barrier all = now >> kAllAt & 0xfff, phase = now >> kPhaseAt;
  const bool complete = (now & 0xfff) == 0 && (now >> kBytesAt & 0xffffff) == 0;
  *barrier = complete ? (phase + 1) << kPhaseAt | all << kAllAt | all : now;
}
inline void Arrive(Barrier* barrier) { Change(barrier, 1, 0, 0); }
inline void WaitFor(Barrier* barrier, int parity) {
  test::WaitUntil([&] { return static_cast<int>(*barrier >> kPhaseAt & 1) != parity; });
}
template <int kWarps>
void SyncFirstWarps() {
  static_assert(kWarps * 32 == test::kFirstThreads);
  test::block->first.Meet();
}

// Copies that a barrier counts are there at once.
inline void ShowBarriers() {}
inline void ArriveAndExpect(Barrier* barrier, int bytes) {
  Change(barrier, 1, static_cast<uint64_t>(bytes), 0);
}
inline void CopyBulk(void* shared, const void* global, int bytes, Barrier* barrier) {
  std::memcpy(shared, global, static_cast<size_t>(bytes));
  Change(barrier, 0, 0, static_cast<uint64_t>(bytes));
}

// --- Blocks ---

// All others run before this one gets on: they must find what it says is there.
inline int32_t CountArrival(int32_t* arrived) {
  const int32_t before = (*arrived)++;
  test::LetOthersRun();
  return before;
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

// --- Products of compute capability 9.0: asynchronous, so they read when they are waited for ---

inline constexpr int kPart = 64;
template <int kRegisters>
void LowerRegisters() {}
template <int kRegisters>
void RaiseRegisters() {}

// A matrix of 128 rows of 64 bytes; the pieces of 16 bytes lie where the address says after its
// bits 4 and 5 are changed by bits 7 and 8.
inline uint64_t Describe(const void* shared) { return reinterpret_cast<uint64_t>(shared) >> 4; }
inline int32_t WordAt(const uint8_t* matrix, int row, int byte) {
  auto address = reinterpret_cast<uint64_t>(matrix) + static_cast<uint64_t>(row * 64 + byte);
  address ^= (address >> 7 & 3) << 4;
  int32_t word;
  std::memcpy(&word, reinterpret_cast<const void*>(address), sizeof word);
  return word;
}
inline void MultiplyAddAsync(int32_t (&sum)[kPart], uint32_t a0, uint32_t a1, uint32_t a2,
                             uint32_t a3, uint64_t b) {
  const test::Shown words(std::array{a0, a1, a2, a3});
  ProductOnHost product{sum, {}, reinterpret_cast<const uint8_t*>(b << 4)};
  for (int t = 0; t < 4; ++t) product.a[t] = words.at(threadIdx.x % 32 / 4 * 4 + t);
  OfThread().begun.push_back(product);
}
inline void BeginProducts() {}
inline void CommitProducts() { OfThread().products.push_back(std::exchange(OfThread().begun, {})); }
template <int kPending>
void WaitForProducts() {
  for (auto& groups = OfThread().products; groups.size() > kPending; groups.pop_front()) {
    for (const ProductOnHost& product : groups.front()) {
      for (int i = 0; i < kPart; ++i) {
        const int column = i / 4 * 8 + threadIdx.x % 4 * 2 + i % 2;
        const auto half = static_cast<size_t>(i % 4 / 2);
        for (int t = 0; t < 4; ++t) {
          for (const size_t part : {0, 1}) {
            product.sum[i] = __dp4a(static_cast<int32_t>(product.a[t][half + 2 * part]),
                                    WordAt(product.b, column, t * 4 + static_cast<int>(part) * 16),
                                    product.sum[i]);
          }
        }
      }
    }
  }
  __syncwarp();  // the lanes of a warp wait as one
}

}  // namespace sparsefuse::cuda

#endif  // SPARSEFUSE_TESTS_CUDA_ON_HOST_PTX_ON_HOST_H_

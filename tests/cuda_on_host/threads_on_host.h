// Blocks of CUDA's threads on the host, one block after the other, and what device code calls, but
// PTX (ptx_on_host.h): what it does in memory is real, its speed and the device's memory model are
// not. Threads take turns, each until it waits for others, and a warp's all have theirs before the
// next warp's, as long as one of them gets on. First to last or last to first: what reads without
// waiting for who writes, or writes without waiting for who reads, is wrong in one of the two.
// A block may stand still while all blocks after it run: what it tells them before it is done is
// wrong, too. Include before the device code.

#ifndef SPARSEFUSE_TESTS_CUDA_ON_HOST_THREADS_ON_HOST_H_
#define SPARSEFUSE_TESTS_CUDA_ON_HOST_THREADS_ON_HOST_H_

#include <ucontext.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <span>
#include <vector>

using std::max;
using std::min;

struct IndexOnHost {
  int x, y, z;
};
inline IndexOnHost threadIdx, blockIdx, blockDim, gridDim;

namespace sparsefuse::test {

struct ThreadOnHost {
  ucontext_t context;
  std::unique_ptr<std::byte[]> stack;
  bool ended;
};
inline constexpr size_t kStackBytes = 256 << 10;
inline constexpr int kLanes = 32;
inline bool last_first = false;  // blocks, and a block's threads

// Where `count` threads wait for each other.
class Meeting {
 public:
  explicit Meeting(int count) : count_(count) {}
  void Meet();

 private:
  int count_, here_ = 0;
  int64_t meetings_ = 0;
};

// What the lanes of a warp show each other. There are two boards, used in turn, so that one meeting
// a time is enough: nobody is two times ahead.
struct WarpOnHost {
  using Board = std::array<std::array<std::byte, 32>, kLanes>;  // by lane
  Meeting meeting{kLanes};
  std::array<Board, 2> boards{};
  std::array<size_t, kLanes> times_shown{};
};
inline constexpr int kFirstThreads = 256;  // that may meet without the others

struct BlockOnHost {
  std::vector<ThreadOnHost> threads;  // perhaps more than it has
  std::vector<WarpOnHost> warps;
  Meeting all{0}, first{kFirstThreads};
  ucontext_t before;
  int ended_threads;
  int turns_in_vain;  // since anything went on
  int turns_of_warp;  // the last of them
};
inline std::array<BlockOnHost, 2> blocks;  // the second while the first stands still
inline BlockOnHost* block = &blocks[0];    // whose turn it is

inline void GoOn() { block->turns_in_vain = block->turns_of_warp = 0; }

// The next turn: the warp's next thread's; after a round of the warp in vain, the next warp's.
inline void GiveWay() {
  const int threads = blockDim.x, self = threadIdx.x;
  const auto step = [](int place, int count) {
    return (place + (last_first ? count - 1 : 1)) % count;
  };
  int warp = self / kLanes, lane = self % kLanes, next;
  do {
    lane = step(lane, kLanes);
    if (++block->turns_of_warp > kLanes) {
      block->turns_of_warp = 0;
      warp = step(warp, threads / kLanes);
    }
    next = warp * kLanes + lane;
  } while (block->threads[static_cast<size_t>(next)].ended);
  threadIdx.x = next;
  swapcontext(&block->threads[static_cast<size_t>(self)].context,
              &block->threads[static_cast<size_t>(next)].context);
}

template <typename Condition>
void WaitUntil(const Condition& holds) {
  for (; !holds(); GiveWay()) {
    if (++block->turns_in_vain > 4 * blockDim.x) {
      std::fputs("every thread of the block waits for others\n", stderr);
      std::abort();
    }
  }
  GoOn();
}

inline void Meeting::Meet() {
  if (++here_ == count_) {
    here_ = 0;
    ++meetings_;
    GoOn();
    return;
  }
  WaitUntil([this, now = meetings_] { return meetings_ != now; });
}

inline WarpOnHost& ThisWarp() { return block->warps[static_cast<size_t>(threadIdx.x / kLanes)]; }

// Shows a value to the warp's other lanes; `at` of the result is lane `at`'s.
template <typename T>
class Shown {
 public:
  explicit Shown(const T& value)
      : board_(ThisWarp()
                   .boards[ThisWarp().times_shown[static_cast<size_t>(threadIdx.x % 32)]++ % 2]) {
    static_assert(sizeof(T) <= 32);
    std::memcpy(board_[static_cast<size_t>(threadIdx.x % 32)].data(), &value, sizeof value);
    ThisWarp().meeting.Meet();
  }
  T at(int lane) const {
    T value;
    std::memcpy(&value, board_[static_cast<size_t>(lane)].data(), sizeof value);
    return value;
  }

 private:
  WarpOnHost::Board& board_;
};

// What blocks of a launch run.
struct LaunchOnHost {
  std::function<void()> program;  // of every thread
  std::function<void()> clean;    // before each block: its memory as that of a new one
  // The memory of the block whose turn it is; calling the result brings it back.
  std::function<std::function<void()>()> keep;
};
inline const LaunchOnHost* launch;
inline std::span<const int> blocks_to_come;

inline void RunThread() {
  launch->program();
  block->threads[static_cast<size_t>(threadIdx.x)].ended = true;
  GoOn();
  if (++block->ended_threads < blockDim.x) GiveWay();  // for good
}

inline void RunNextBlock() {
  launch->clean();
  blockIdx = {blocks_to_come.front(), 0, 0};
  blocks_to_come = blocks_to_come.subspan(1);
  const auto count = static_cast<size_t>(blockDim.x);
  if (block->threads.size() < count) block->threads.resize(count);
  block->warps.assign((count + kLanes - 1) / kLanes, {});
  block->all = Meeting(blockDim.x);
  block->first = Meeting(kFirstThreads);
  for (ThreadOnHost& thread : std::span(block->threads).first(count)) {
    if (!thread.stack) thread.stack = std::make_unique_for_overwrite<std::byte[]>(kStackBytes);
    getcontext(&thread.context);
    thread.context.uc_stack.ss_sp = thread.stack.get();
    thread.context.uc_stack.ss_size = kStackBytes;
    thread.context.uc_link = &block->before;
    makecontext(&thread.context, RunThread, 0);
    thread.ended = false;
  }
  block->ended_threads = 0;
  GoOn();
  threadIdx = {last_first ? blockDim.x - 1 : 0, 0, 0};
  swapcontext(&block->before, &block->threads[static_cast<size_t>(threadIdx.x)].context);
}

// Blocks come in the order of `numbers`.
inline void RunBlocks(std::span<const int> numbers, int threads, const LaunchOnHost& one) {
  launch = &one;
  blocks_to_come = numbers;
  blockDim = {threads, 1, 1};
  gridDim = {static_cast<int>(numbers.size()), 1, 1};
  while (!blocks_to_come.empty()) RunNextBlock();
}

// This thread's block stands still until all blocks that have not begun have ended, unless it runs
// while another one does.
inline void LetOthersRun() {
  if (block != &blocks[0] || blocks_to_come.empty()) return;
  const std::function<void()> bring_back = launch->keep();
  const IndexOnHost thread = threadIdx, number = blockIdx;
  block = &blocks[1];
  while (!blocks_to_come.empty()) RunNextBlock();
  block = &blocks[0];
  threadIdx = thread;
  blockIdx = number;
  bring_back();
}

}  // namespace sparsefuse::test

inline void __syncthreads() { sparsefuse::test::block->all.Meet(); }
inline void __syncwarp() { sparsefuse::test::ThisWarp().meeting.Meet(); }
inline void __threadfence() {}

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
  const T before = *to;
  *to += value;
  return before;
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

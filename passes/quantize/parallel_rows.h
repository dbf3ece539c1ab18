// Loops over rows of weights, on several threads.

#ifndef SPARSEFUSE_PASSES_QUANTIZE_PARALLEL_ROWS_H_
#define SPARSEFUSE_PASSES_QUANTIZE_PARALLEL_ROWS_H_

#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

namespace sparsefuse {

// Every i in [0, count), each exactly once, on up to `threads` threads. body(i) must not share
// state and must not throw.
template <typename Body>
void ForEachIndex(int threads, int64_t count, const Body& body) {
  std::atomic<int64_t> next{0};
  const auto work = [&] {
    for (int64_t i = next++; i < count; i = next++) body(i);
  };
  std::vector<std::jthread> others;
  for (int t = 1; t < threads && t < count; ++t) others.emplace_back(work);
  work();
}

}  // namespace sparsefuse

#endif  // SPARSEFUSE_PASSES_QUANTIZE_PARALLEL_ROWS_H_

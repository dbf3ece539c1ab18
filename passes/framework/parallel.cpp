#include "passes/framework/parallel.h"

#include <algorithm>
#include <atomic>
#include <exception>
#include <thread>
#include <vector>

namespace sparsefuse {

void ForEachIndex(int threads, size_t count, const std::function<void(size_t i)>& body) {
  std::atomic<size_t> next{0};
  std::vector<std::exception_ptr> errors(count);
  const auto work = [&] {
    for (size_t i = next++; i < count; i = next++) {
      try {
        body(i);
      } catch (...) {
        errors[i] = std::current_exception();
      }
    }
  };
  {
    std::vector<std::jthread> others;
    const auto most = static_cast<size_t>(std::max(1, threads));
    for (size_t t = 1; t < std::min(most, count); ++t) others.emplace_back(work);
    work();
  }
  for (const std::exception_ptr& error : errors) {
    if (error) std::rethrow_exception(error);
  }
}

}  // namespace sparsefuse

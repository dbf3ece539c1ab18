// A parallel loop that the caller supplies: kernels never own threads. In the operator library it
// is ONNX Runtime's pool, in the compressor a plain loop or std::jthread.

#ifndef SPARSEFUSE_KERNELS_BASE_PARALLEL_H_
#define SPARSEFUSE_KERNELS_BASE_PARALLEL_H_

#include <cstddef>

namespace sparsefuse {

struct ParallelFor {
  // Calls body(context, i) once for each i in [0, count), in any order, on any thread; returns when
  // all are done. `threads` is a hint for splitting (≥ 1).
  void (*run)(void* pool, size_t count, void (*body)(void* context, size_t i), void* context);
  void* pool;
  int threads;
};

// Runs the loop on the calling thread.
ParallelFor SerialLoop() noexcept;

}  // namespace sparsefuse

#endif  // SPARSEFUSE_KERNELS_BASE_PARALLEL_H_

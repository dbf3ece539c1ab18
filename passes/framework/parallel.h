// A loop over independent jobs.

#ifndef SPARSEFUSE_PASSES_FRAMEWORK_PARALLEL_H_
#define SPARSEFUSE_PASSES_FRAMEWORK_PARALLEL_H_

#include <cstddef>
#include <functional>

namespace sparsefuse {

// body(i) once for each i in [0, count), on up to `threads` threads, in any order; what it finds it
// keeps to itself. All run, even after an error; the error thrown is that of the lowest i.
void ForEachIndex(int threads, size_t count, const std::function<void(size_t i)>& body);

}  // namespace sparsefuse

#endif  // SPARSEFUSE_PASSES_FRAMEWORK_PARALLEL_H_

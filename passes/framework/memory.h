// Peak memory of this process, for reports.

#ifndef SPARSEFUSE_PASSES_FRAMEWORK_MEMORY_H_
#define SPARSEFUSE_PASSES_FRAMEWORK_MEMORY_H_

#include <cstdint>

namespace sparsefuse {

// Starts a new peak where the kernel allows it; otherwise peaks are since the process began.
void ResetPeakMemory() noexcept;

// Largest resident set since then, in bytes; 0 when the system does not tell.
int64_t PeakMemoryBytes() noexcept;

}  // namespace sparsefuse

#endif  // SPARSEFUSE_PASSES_FRAMEWORK_MEMORY_H_

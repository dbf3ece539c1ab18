#include "passes/framework/memory.h"

#include <sys/resource.h>

#include <cstdio>

namespace sparsefuse {

void ResetPeakMemory() noexcept {
  // "5" resets VmHWM (proc(5)); containers may forbid it, then the older, larger peak is reported.
  if (std::FILE* file = std::fopen("/proc/self/clear_refs", "w")) {
    std::fputs("5", file);
    std::fclose(file);
  }
}

int64_t PeakMemoryBytes() noexcept {
  if (std::FILE* file = std::fopen("/proc/self/status", "r")) {
    char line[256];
    long long kibibytes = 0;
    while (std::fgets(line, sizeof line, file)) {
      if (std::sscanf(line, "VmHWM: %lld kB", &kibibytes) == 1) break;
    }
    std::fclose(file);
    if (kibibytes > 0) return kibibytes * 1024;
  }
  rusage usage{};
  return getrusage(RUSAGE_SELF, &usage) == 0 ? usage.ru_maxrss * 1024 : 0;
}

}  // namespace sparsefuse

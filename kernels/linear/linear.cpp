// The table of kernels and the choice among them. Compiled for the baseline.

#include "kernels/linear/linear.h"

#include <array>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "kernels/linear/kernels.h"

namespace sparsefuse {
namespace {

constexpr const LinearKernel* kKernels[] = {
#if defined(__x86_64__)
    &kLinearAmx,
    &kLinearAvx512Vnni,
    &kLinearAvx2,
#endif
    &kLinearRef,
};

bool Runs(const LinearKernel& kernel) noexcept {
  return DetectCpuFeatures().Contains(kernel.needs);
}

// Null when the variable is absent or empty.
const char* ForcedName() noexcept {
  const char* name = std::getenv("SPARSEFUSE_ISA");
  return name && *name ? name : nullptr;
}

const LinearKernel* FindKernel(const char* name) noexcept {
  for (const LinearKernel* kernel : kKernels) {
    if (std::strcmp(kernel->name, name) == 0) return kernel;
  }
  return nullptr;
}

const LinearKernel* BestKernel() noexcept {
  for (const LinearKernel* kernel : kKernels) {
    if (Runs(*kernel)) return kernel;
  }
  return &kLinearRef;
}

void ExplainNone(const char* forced, std::span<char> text) noexcept {
  size_t used = static_cast<size_t>(
      std::snprintf(text.data(), text.size(), "SPARSEFUSE_ISA=%s is none of", forced));
  for (const LinearKernel* kernel : kKernels) {
    if (used >= text.size()) return;
    used += static_cast<size_t>(
        std::snprintf(text.data() + used, text.size() - used, " %s", kernel->name));
  }
}

}  // namespace

std::span<const LinearKernel* const> AllLinearKernels() noexcept { return kKernels; }

const LinearKernel* SelectLinearKernel() noexcept {
  const char* forced = ForcedName();
  if (!forced) return BestKernel();
  const LinearKernel* kernel = FindKernel(forced);
  return kernel && Runs(*kernel) ? kernel : nullptr;
}

void ExplainLinearChoice(const LinearKernel* kernel, std::span<char> text) noexcept {
  if (text.empty()) return;
  const char* forced = ForcedName();
  if (!kernel && forced) kernel = FindKernel(forced);
  if (!kernel) return ExplainNone(forced ? forced : "", text);
  const CpuFeatures lacking = kernel->needs.Without(DetectCpuFeatures());
  if (!lacking.empty()) {
    std::array<char, 128> names;
    DescribeCpuFeatures(lacking, names);
    std::snprintf(text.data(), text.size(), "%s: the CPU lacks %s", kernel->name, names.data());
  } else if (kernel == SelectLinearKernel()) {
    std::snprintf(text.data(), text.size(), "used");
  } else if (forced) {
    std::snprintf(text.data(), text.size(), "SPARSEFUSE_ISA=%s", forced);
  } else {
    std::snprintf(text.data(), text.size(), "%s is faster", BestKernel()->name);
  }
}

}  // namespace sparsefuse

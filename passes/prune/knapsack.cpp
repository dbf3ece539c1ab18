#include "passes/prune/knapsack.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

namespace sparsefuse {
namespace {

constexpr size_t kGrains = 4096;

}  // namespace

std::optional<std::vector<size_t>> ChooseOptions(
    std::span<const std::vector<KnapsackOption>> modules, double wanted) {
  constexpr double kNever = std::numeric_limits<double>::infinity();
  // least[s]: of the modules so far, saving s grains, or at least so much where s is the last.
  std::vector<double> least(kGrains + 1, kNever);
  least[0] = 0;
  std::vector<std::vector<uint32_t>> chosen, from;
  for (const std::vector<KnapsackOption>& options : modules) {
    std::vector<double> next(kGrains + 1, kNever);
    std::vector<uint32_t> option(kGrains + 1), origin(kGrains + 1);
    for (size_t o = 0; o < options.size(); ++o) {
      const double share = wanted > 0 ? options[o].saved / wanted : 0;
      const auto grains = static_cast<size_t>(std::min(share, 1.0) * kGrains * (1 + 1e-12));
      for (size_t s = 0; s <= kGrains; ++s) {
        if (least[s] == kNever) continue;
        const size_t to = std::min(s + grains, kGrains);
        const double loss = least[s] + options[o].loss;
        if (loss >= next[to]) continue;
        next[to] = loss;
        option[to] = static_cast<uint32_t>(o);
        origin[to] = static_cast<uint32_t>(s);
      }
    }
    least = std::move(next);
    chosen.push_back(std::move(option));
    from.push_back(std::move(origin));
  }
  size_t at = wanted > 0 ? kGrains : 0;
  std::vector<size_t> result(modules.size());
  if (least[at] == kNever) {
    // Rounding may have cost the last grains: all that there is.
    double most = 0;
    for (size_t m = 0; m < modules.size(); ++m) {
      const auto best =
          std::max_element(modules[m].begin(), modules[m].end(),
                           [](const auto& a, const auto& b) { return a.saved < b.saved; });
      result[m] = static_cast<size_t>(best - modules[m].begin());
      most += best->saved;
    }
    if (most >= wanted * (1 - 1e-9)) return result;
    return std::nullopt;
  }
  for (size_t m = modules.size(); m > 0; --m) {
    result[m - 1] = chosen[m - 1][at];
    at = from[m - 1][at];
  }
  return result;
}

}  // namespace sparsefuse

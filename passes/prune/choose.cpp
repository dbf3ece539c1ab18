#include "passes/prune/choose.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <optional>

#include "onnx_io/error.h"
#include "passes/prune/block_drop.h"
#include "passes/prune/knapsack.h"

namespace sparsefuse {
namespace {

double Saved(const ProductCosts& costs, const std::vector<Choice>& choices) {
  std::vector<Keep> keeps;
  std::vector<const Block*> gone;
  for (const Choice& choice : choices) {
    if (const Block* block = GoneBlock(choice)) {
      gone.push_back(block);
    } else {
      keeps.push_back({choice.prunable->module, choice.kept});
    }
  }
  return costs.Saved(keeps, gone);
}

// picked[m]: 0, or the option's index + 1.
std::vector<Choice> Picked(const std::vector<ModuleOptions>& options,
                           const std::vector<size_t>& picked) {
  std::vector<Choice> choices;
  for (size_t m = 0; m < picked.size(); ++m) {
    if (picked[m] == 0) continue;
    choices.push_back({options[m].prunable, options[m].options[picked[m] - 1].kept});
  }
  EraseInside(choices);
  return choices;
}

}  // namespace

Savings SavingsOf(const std::vector<ModuleOptions>& options, const ProductCosts& costs) {
  Savings savings;
  std::vector<const Prunable*> pruned;
  for (const ModuleOptions& module : options) {
    savings.alone.emplace_back();
    if (!module.options.empty()) pruned.push_back(module.prunable);
    for (const PruneOption& option : module.options) {
      savings.alone.back().push_back(Saved(costs, {{module.prunable, option.kept}}));
    }
  }
  savings.all = costs.Of(pruned);
  savings.whole = costs.total();
  savings.together = [&costs](const std::vector<Choice>& choices) { return Saved(costs, choices); };
  return savings;
}

std::vector<Choice> ChooseByRatio(const std::vector<ModuleOptions>& options, const Savings& savings,
                                  double ratio) {
  std::vector<std::vector<KnapsackOption>> menu;
  for (size_t m = 0; m < options.size(); ++m) {
    menu.push_back({{0, 0}});
    double least = 0;  // more removed never costs less
    for (size_t o = 0; o < options[m].options.size(); ++o) {
      least = std::max(least, options[m].Expected(options[m].options[o]));
      menu.back().push_back({least, savings.alone[m][o]});
    }
  }
  const double enough = ratio * savings.all * (1 - 1e-9);
  std::vector<size_t> last;
  // Savings of modules that share a product overlap: ask for more until it is enough.
  for (double wanted = ratio * savings.all;; wanted *= 1.01) {
    const auto picked = ChooseOptions(menu, wanted);
    if (!picked) break;
    if (*picked == last) continue;
    last = *picked;
    std::vector<Choice> choices = Picked(options, *picked);
    if (savings.together(choices) >= enough) return choices;
  }
  std::vector<size_t> strongest;
  for (const auto& module : menu) strongest.push_back(module.size() - 1);
  std::vector<Choice> most = Picked(options, strongest);
  const double reached = savings.together(most);
  // Together they may save more than each alone, in time.
  if (reached >= enough) return most;
  throw UserError(
      ErrorCode::kConfig,
      fmt::format("ratio {} cannot be reached: {:.3f} is the most that these units can save", ratio,
                  std::floor(reached / savings.all * 1000) / 1000),
      "ask for less, allow more units, or smaller multiples");
}

std::vector<Choice> ChooseMildest(const std::vector<ModuleOptions>& options) {
  std::vector<size_t> picked;
  for (const ModuleOptions& module : options) picked.push_back(module.options.empty() ? 0 : 1);
  return Picked(options, picked);
}

}  // namespace sparsefuse

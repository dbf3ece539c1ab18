// Which option of which module: what is missed least and still saves enough.

#ifndef SPARSEFUSE_PASSES_PRUNE_CHOOSE_H_
#define SPARSEFUSE_PASSES_PRUNE_CHOOSE_H_

#include <functional>
#include <span>
#include <vector>

#include "passes/prune/resolve.h"
#include "passes/sensitivity/product_costs.h"
#include "passes/sensitivity/unit_options.h"

namespace sparsefuse {

// What choices save, in one unit: multiply-adds, weights, milliseconds.
struct Savings {
  double all = 0;    // of the layers with prunable units, which a ratio is a share of
  double whole = 0;  // of the model
  // One a module, one an option: with nothing else removed.
  std::vector<std::vector<double>> alone;
  std::function<double(const std::vector<Choice>&)> together;
};

Savings SavingsOf(const std::vector<ModuleOptions>& options, const ProductCosts& costs);

// The mildest choices that save `ratio` of savings.all together. UserError E_CONFIG that names what
// can be reached if that is less.
std::vector<Choice> ChooseByRatio(const std::vector<ModuleOptions>& options, const Savings& savings,
                                  double ratio);

// Each module's mildest option.
std::vector<Choice> ChooseMildest(const std::vector<ModuleOptions>& options);

}  // namespace sparsefuse

#endif  // SPARSEFUSE_PASSES_PRUNE_CHOOSE_H_

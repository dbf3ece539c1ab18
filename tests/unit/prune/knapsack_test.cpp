#include "passes/prune/knapsack.h"

#include <random>

#include "tests/support/catch.h"

namespace sparsefuse {
namespace {

using Modules = std::vector<std::vector<KnapsackOption>>;

double Total(const Modules& modules, const std::vector<size_t>& chosen,
             double KnapsackOption::*field) {
  double sum = 0;
  for (size_t m = 0; m < modules.size(); ++m) sum += modules[m][chosen[m]].*field;
  return sum;
}

// Every combination.
double LeastLoss(const Modules& modules, double wanted) {
  double best = std::numeric_limits<double>::infinity();
  std::vector<size_t> chosen(modules.size());
  while (true) {
    if (Total(modules, chosen, &KnapsackOption::saved) >= wanted) {
      best = std::min(best, Total(modules, chosen, &KnapsackOption::loss));
    }
    size_t m = 0;
    while (m < modules.size() && ++chosen[m] == modules[m].size()) chosen[m++] = 0;
    if (m == modules.size()) return best;
  }
}

TEST_CASE("as good as trying all") {
  std::mt19937 random(3);
  std::uniform_real_distribution<double> uniform;
  for (int round = 0; round < 20; ++round) {
    Modules modules(4);
    for (auto& options : modules) {
      options = {{0, 0}};
      for (int o = 0; o < 4; ++o) {
        options.push_back(
            {options.back().loss + uniform(random), options.back().saved + uniform(random)});
      }
    }
    for (const double wanted : {0.0, 0.3, 1.7, 4.0}) {
      CAPTURE(round, wanted);
      const auto chosen = ChooseOptions(modules, wanted);
      const double least = LeastLoss(modules, wanted);
      if (std::isinf(least)) {
        CHECK_FALSE(chosen);
        continue;
      }
      REQUIRE(chosen);
      CHECK(Total(modules, *chosen, &KnapsackOption::saved) >= wanted);
      CHECK(Total(modules, *chosen, &KnapsackOption::loss) <=
            LeastLoss(modules, wanted * 1.001) + 1e-12);
    }
  }
}

TEST_CASE("exactly all that there is, and more than that") {
  const Modules modules = {{{0, 0}, {1, 1}}, {{0, 0}, {2, 1.0 / 3}}};
  CHECK(ChooseOptions(modules, 4.0 / 3) == std::vector<size_t>{1, 1});
  CHECK_FALSE(ChooseOptions(modules, 1.4));
}

}  // namespace
}  // namespace sparsefuse

// What inspect shows of a model's structure: what can be pruned, and why the rest cannot.

#ifndef SPARSEFUSE_CLI_STRUCTURE_TEXT_H_
#define SPARSEFUSE_CLI_STRUCTURE_TEXT_H_

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "passes/analysis/structure.h"

namespace sparsefuse {

// Lines of a report: modules and blocks of one kind counted together, the ones that are left alone
// with their reason; the dimensions that most weights have and that must stay.
struct StructureLines {
  std::vector<std::string> prunable, left_alone, frozen;
};
StructureLines Describe(const Structure& structure);

// All modules, blocks and frozen dimensions.
nlohmann::ordered_json StructureJson(const Structure& structure);

}  // namespace sparsefuse

#endif  // SPARSEFUSE_CLI_STRUCTURE_TEXT_H_

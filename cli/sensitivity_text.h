// What the pass sensitivity found, as people read it.

#ifndef SPARSEFUSE_CLI_SENSITIVITY_TEXT_H_
#define SPARSEFUSE_CLI_SENSITIVITY_TEXT_H_

#include <nlohmann/json.hpp>
#include <string>

namespace sparsefuse {

// `sensitivity`: as in sensitivity.json.
std::string SensitivityText(const nlohmann::json& sensitivity);

}  // namespace sparsefuse

#endif  // SPARSEFUSE_CLI_SENSITIVITY_TEXT_H_

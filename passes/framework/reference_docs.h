// Documentation made from the tables of keys, passes and parameters: what `sparsefuse passes`
// prints and docs/config.md and configs/schema.json hold.

#ifndef SPARSEFUSE_PASSES_FRAMEWORK_REFERENCE_DOCS_H_
#define SPARSEFUSE_PASSES_FRAMEWORK_REFERENCE_DOCS_H_

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace sparsefuse {

std::string RenderConfigMarkdown();  // docs/config.md
std::string RenderConfigSchema();    // configs/schema.json: JSON Schema, draft 7

// [{name, summary, exact, parameters: [{name, type, default, minimum?, maximum?, choices?,
// summary}]}]
nlohmann::ordered_json DescribePasses();

}  // namespace sparsefuse

#endif  // SPARSEFUSE_PASSES_FRAMEWORK_REFERENCE_DOCS_H_

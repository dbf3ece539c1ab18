// JSON text from people: what the JSON library lets pass in silence is an error here.

#ifndef SPARSEFUSE_PASSES_FRAMEWORK_STRICT_JSON_H_
#define SPARSEFUSE_PASSES_FRAMEWORK_STRICT_JSON_H_

#include <nlohmann/json_fwd.hpp>
#include <string_view>

namespace sparsefuse {

inline constexpr int kMaxJsonDepth = 64;  // objects and lists inside each other

// UserError E_CONFIG, with line and column or the JSON path: text that is not JSON or not UTF-8, a
// byte-order mark, a key given twice, nesting deeper than kMaxJsonDepth, numbers beyond double.
nlohmann::json ParseStrictJson(std::string_view text);

}  // namespace sparsefuse

#endif  // SPARSEFUSE_PASSES_FRAMEWORK_STRICT_JSON_H_

// ParamSpec: name, type, default, range and sentence of each parameter of a pass. The only source for
// parsing, unknown-key errors, help, docs/config.md and configs/schema.json.

#ifndef SPARSEFUSE_PASSES_FRAMEWORK_PARAMS_H_
#define SPARSEFUSE_PASSES_FRAMEWORK_PARAMS_H_

#include <limits>
#include <map>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include <nlohmann/json_fwd.hpp>

namespace sparsefuse {

using ParamValue =
    std::variant<bool, int64_t, double, std::string, std::vector<std::string>>;

struct Param {
  std::string_view name;
  ParamValue otherwise;       // default; its alternative is the parameter's type
  std::string_view summary;   // one sentence
  double min = -std::numeric_limits<double>::infinity();  // numbers, inclusive
  double max = std::numeric_limits<double>::infinity();
  std::vector<std::string> choices = {};  // strings and lists: allowed values; empty = any
};

using ParamSpec = std::vector<Param>;

// Values for a spec, defaults filled in.
class Params {
 public:
  // `object`: the JSON object of one pass, keys "type" ignored. UserError E_CONFIG at
  // `path`.key for an unknown key (with the nearest name), a wrong type, a value out of range.
  static Params Parse(const ParamSpec& spec, const nlohmann::json& object, std::string_view path);
  static Params Defaults(const ParamSpec& spec);

  bool Bool(std::string_view name) const;
  int64_t Int(std::string_view name) const;
  double Double(std::string_view name) const;
  const std::string& String(std::string_view name) const;
  const std::vector<std::string>& Strings(std::string_view name) const;

  nlohmann::json ToJson() const;

 private:
  const ParamValue& Get(std::string_view name) const;  // InternalError if not in the spec
  std::map<std::string, ParamValue, std::less<>> values_;
};

}  // namespace sparsefuse

#endif  // SPARSEFUSE_PASSES_FRAMEWORK_PARAMS_H_

// ParamSpec: name, type, default, range and sentence of each parameter of a pass (and of each key
// of the configuration). The only source for parsing, unknown-key errors, help, docs/config.md and
// configs/schema.json.

#ifndef SPARSEFUSE_PASSES_FRAMEWORK_PARAMS_H_
#define SPARSEFUSE_PASSES_FRAMEWORK_PARAMS_H_

#include <cstdint>
#include <limits>
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace sparsefuse {

using ParamValue = std::variant<bool, int64_t, double, std::string, std::vector<std::string>>;

// As the default of a number: nothing unless given. Written as null, which is accepted too.
inline constexpr double kUnset = std::numeric_limits<double>::quiet_NaN();

struct Param {
  std::string_view name;
  ParamValue otherwise;      // default; its alternative is the parameter's type
  std::string_view summary;  // one sentence
  double min = -std::numeric_limits<double>::infinity();  // numbers, inclusive
  double max = std::numeric_limits<double>::infinity();
  std::vector<std::string> choices = {};  // strings and lists: allowed values; empty = any
};

using ParamSpec = std::vector<Param>;

// Values for a spec, defaults filled in.
class Params {
 public:
  // `object`: the JSON object of one pass, key "type" ignored. UserError E_CONFIG at `path`.key for
  // an unknown key (with the nearest name), a wrong type, a value out of range; the value and what
  // is allowed are named.
  static Params Parse(const ParamSpec& spec, const nlohmann::json& object, std::string_view path);
  static Params Defaults(const ParamSpec& spec);

  bool Bool(std::string_view name) const;
  int64_t Int(std::string_view name) const;
  double Double(std::string_view name) const;
  const std::string& String(std::string_view name) const;
  const std::vector<std::string>& Strings(std::string_view name) const;
  const ParamValue& Get(std::string_view name) const;  // InternalError if not in the spec

  // An object with every parameter of the spec.
  nlohmann::json ToJson() const;

 private:
  std::map<std::string, ParamValue, std::less<>> values_;
};

// A parameter's value as JSON; kUnset is null.
nlohmann::json ParamToJson(const ParamValue& value);

// UserError E_CONFIG at `path` unless `value` is an object; at `path`.key for a key that is not in
// `known`, with the nearest that is.
void CheckKeys(const nlohmann::json& value, const std::vector<std::string>& known,
               std::string_view path);

// `value` for a message: one line of JSON, cut at 60 characters.
std::string Brief(const nlohmann::json& value);

}  // namespace sparsefuse

#endif  // SPARSEFUSE_PASSES_FRAMEWORK_PARAMS_H_

#include "passes/framework/params.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "onnx_io/error.h"

namespace sparsefuse {
namespace {

using nlohmann::json;

std::string Quoted(const std::vector<std::string>& words) {
  std::string text;
  for (const std::string& word : words) text += (text.empty() ? "\"" : ", \"") + word + "\"";
  return text;
}

std::string DidYouMean(std::string_view word, const std::vector<std::string>& known) {
  const std::string nearest = Nearest(word, known);
  return nearest.empty() ? "" : fmt::format("did you mean \"{}\"?", nearest);
}

// Reads one value by the type of the parameter's default. `at` is the value's JSON path.
class ValueReader {
 public:
  ValueReader(const Param& param, const json& value, std::string at)
      : param_(param), value_(value), at_(std::move(at)) {}

  ParamValue operator()(bool) const {
    if (!value_.is_boolean()) Fail("true or false");
    return value_.get<bool>();
  }

  ParamValue operator()(int64_t) const {
    // Unsigned numbers above int64 would wrap.
    const bool fits = value_.is_number_integer() &&
                      (!value_.is_number_unsigned() ||
                       value_.get<uint64_t>() <= uint64_t{std::numeric_limits<int64_t>::max()});
    if (!fits || !InRange(static_cast<double>(value_.get<int64_t>()))) Fail("an integer" + Range());
    return value_.get<int64_t>();
  }

  ParamValue operator()(double otherwise) const {
    if (value_.is_null() && std::isnan(otherwise)) return kUnset;
    if (!value_.is_number() || !InRange(value_.get<double>())) Fail("a number" + Range());
    return value_.get<double>();
  }

  ParamValue operator()(const std::string&) const {
    if (!value_.is_string()) Fail(param_.choices.empty() ? "a string" : Choices());
    CheckChoice(value_, at_);
    return value_.get<std::string>();
  }

  ParamValue operator()(const std::vector<std::string>&) const {
    if (!value_.is_array()) Fail("a list of strings");
    std::vector<std::string> words;
    for (size_t i = 0; i < value_.size(); ++i) {
      const std::string at = fmt::format("{}[{}]", at_, i);
      if (!value_[i].is_string()) {
        throw UserError(ErrorCode::kConfig,
                        fmt::format("expected a string, got {}", Brief(value_[i])))
            .At(at);
      }
      CheckChoice(value_[i], at);
      words.push_back(value_[i]);
    }
    return words;
  }

 private:
  [[noreturn]] void Fail(std::string expected) const {
    throw UserError(ErrorCode::kConfig, fmt::format("expected {}, got {}", expected, Brief(value_)))
        .At(at_);
  }

  void CheckChoice(const json& word, const std::string& at) const {
    const auto& choices = param_.choices;
    const auto& text = word.get_ref<const std::string&>();
    if (choices.empty() || std::find(choices.begin(), choices.end(), text) != choices.end()) return;
    throw UserError(ErrorCode::kConfig, fmt::format("expected {}, got {}", Choices(), Brief(word)),
                    DidYouMean(text, choices))
        .At(at);
  }

  std::string Choices() const {
    return (param_.choices.size() > 1 ? "one of " : "") + Quoted(param_.choices);
  }
  bool InRange(double x) const { return x >= param_.min && x <= param_.max; }
  std::string Range() const {
    const bool low = std::isfinite(param_.min), high = std::isfinite(param_.max);
    if (low && high) return fmt::format(" from {} to {}", param_.min, param_.max);
    if (low) return fmt::format(" of {} or more", param_.min);
    return high ? fmt::format(" of {} or less", param_.max) : "";
  }

  const Param& param_;
  const json& value_;
  std::string at_;
};

}  // namespace

std::string Brief(const json& value) {
  // A list or object may be huge and is not what was expected anyway: its kind says enough.
  if (value.is_object()) return value.empty() ? "{}" : "an object";
  if (value.is_array()) return value.empty() ? "[]" : "a list";
  std::string text = value.dump(-1, ' ', false, json::error_handler_t::replace);
  constexpr size_t kLongest = 60;
  if (text.size() > kLongest) {
    size_t end = kLongest;
    while (end > 0 && (text[end] & 0xC0) == 0x80) --end;  // not inside a UTF-8 character
    text = text.substr(0, end) + "…";
  }
  return text;
}

void CheckKeys(const json& value, const std::vector<std::string>& known, std::string_view path) {
  if (!value.is_object()) {
    throw UserError(ErrorCode::kConfig, fmt::format("expected an object, got {}", Brief(value)))
        .At(path);
  }
  for (const auto& [key, ignored] : value.items()) {
    if (std::find(known.begin(), known.end(), key) != known.end()) continue;
    std::string hint = DidYouMean(key, known);
    if (hint.empty()) {
      hint = known.empty() ? "nothing is configurable here" : "known here: " + Quoted(known);
    }
    throw UserError(ErrorCode::kConfig, "unknown key", hint)
        .At(fmt::format("{}.{}", path, Printable(key)));
  }
}

json ParamToJson(const ParamValue& value) {
  return std::visit(
      [](const auto& v) -> json {
        if constexpr (std::is_same_v<decltype(v), const double&>) {
          if (std::isnan(v)) return nullptr;
        }
        return v;
      },
      value);
}

Params Params::Parse(const ParamSpec& spec, const json& object, std::string_view path) {
  std::vector<std::string> known;
  for (const Param& param : spec) known.emplace_back(param.name);
  if (object.is_object() && object.contains("type")) {
    json rest = object;
    rest.erase("type");
    CheckKeys(rest, known, path);
  } else {
    CheckKeys(object, known, path);
  }
  Params params = Defaults(spec);
  for (const Param& param : spec) {
    const auto found = object.find(param.name);
    if (found == object.end()) continue;
    const ValueReader read(param, *found, fmt::format("{}.{}", path, param.name));
    params.values_.insert_or_assign(std::string(param.name), std::visit(read, param.otherwise));
  }
  return params;
}

Params Params::Defaults(const ParamSpec& spec) {
  Params params;
  for (const Param& param : spec) params.values_.emplace(param.name, param.otherwise);
  return params;
}

const ParamValue& Params::Get(std::string_view name) const {
  const auto found = values_.find(name);
  SF_CHECK(found != values_.end(), "no parameter \"{}\"", name);
  return found->second;
}

namespace {
template <typename T>
const T& As(const ParamValue& value, std::string_view name) {
  SF_CHECK(std::holds_alternative<T>(value), "parameter \"{}\" has another type", name);
  return std::get<T>(value);
}
}  // namespace

bool Params::Bool(std::string_view name) const { return As<bool>(Get(name), name); }
int64_t Params::Int(std::string_view name) const { return As<int64_t>(Get(name), name); }
double Params::Double(std::string_view name) const { return As<double>(Get(name), name); }
const std::string& Params::String(std::string_view name) const {
  return As<std::string>(Get(name), name);
}
const std::vector<std::string>& Params::Strings(std::string_view name) const {
  return As<std::vector<std::string>>(Get(name), name);
}

json Params::ToJson() const {
  json object = json::object();
  for (const auto& [name, value] : values_) object[name] = ParamToJson(value);
  return object;
}

}  // namespace sparsefuse

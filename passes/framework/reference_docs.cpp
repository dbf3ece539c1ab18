#include "passes/framework/reference_docs.h"

#include <cmath>

#include "passes/framework/config.h"

namespace sparsefuse {
namespace {

using Json = nlohmann::ordered_json;  // keys in the order of the tables

std::string_view TypeName(const ParamValue& value) {
  constexpr std::string_view kNames[] = {"boolean", "integer", "number", "string",
                                         "list of strings"};
  return kNames[value.index()];
}

bool IsUnset(const ParamValue& value) {
  const double* number = std::get_if<double>(&value);
  return number && std::isnan(*number);
}

Json NumberOf(const Param& param, double x) {
  if (std::holds_alternative<int64_t>(param.otherwise)) return static_cast<int64_t>(x);
  return x;
}

// --- Markdown
// -------------------------------------------------------------------------------------

std::string CodeList(const std::vector<std::string>& words) {
  std::string text;
  for (const std::string& word : words) text += (text.empty() ? "`" : ", `") + word + "`";
  return text;
}

std::string Allowed(const Param& param) {
  const bool low = std::isfinite(param.min), high = std::isfinite(param.max);
  if (!param.choices.empty()) return CodeList(param.choices);
  if (low && high) return fmt::format("{} … {}", param.min, param.max);
  if (low) return fmt::format("≥ {}", param.min);
  return high ? fmt::format("≤ {}", param.max) : "";
}

std::string DefaultText(const ParamValue& value) {
  if (IsUnset(value) || value == ParamValue(std::string())) return "–";
  return "`" + ParamToJson(value).dump() + "`";
}

std::string Table(std::string_view heading, const ParamSpec& spec) {
  std::string text =
      fmt::format("| {} | type | default | allowed | meaning |\n|---|---|---|---|---|\n", heading);
  for (const Param& param : spec) {
    text += fmt::format("| `{}` | {} | {} | {} | {} |\n", param.name, TypeName(param.otherwise),
                        DefaultText(param.otherwise), Allowed(param), param.summary);
  }
  return text + "\n";
}

constexpr std::string_view kIntroduction = R"(# Configuration

<!-- Made by `build/release/bin/sparsefuse passes --format markdown > docs/config.md`: edit the tables in
     passes/framework/config.cpp and the passes instead. -->

`sparsefuse compress -c pipeline.json` reads one JSON object. Every key is optional; a key or pass that is
not listed here, a value of another type or out of range, and a key given twice are errors that name the
place (`$.passes[1].weights`). Paths are relative to the file they stand in. Flags override the file.
Without `-c` and `--preset` the preset `int8` is taken. `configs/schema.json` lets editors complete and check.

The output folder's `resolved_config.json` is such a file, with every default filled in and, under
`decisions`, whatever depended on timing: a run given them measures nothing and gives the same bytes.

)";

std::string Exact(const PassInfo& pass) {
  return pass.exactness == Exactness::kLossless
             ? "Exact up to rounding; checked after it runs."
             : "Changes outputs; checked against the original after it runs.";
}

// --- JSON Schema
// ----------------------------------------------------------------------------------

Json SchemaOf(const Param& param) {
  Json schema = {{"description", param.summary}};
  Json* element = &schema;
  if (std::holds_alternative<std::vector<std::string>>(param.otherwise)) {
    schema["type"] = "array";
    schema["items"] = {{"type", "string"}};
    element = &schema["items"];
  } else if (IsUnset(param.otherwise)) {
    schema["type"] = {"number", "null"};
  } else {
    schema["type"] = TypeName(param.otherwise);
  }
  if (!param.choices.empty()) (*element)["enum"] = param.choices;
  if (std::isfinite(param.min)) schema["minimum"] = NumberOf(param, param.min);
  if (std::isfinite(param.max)) schema["maximum"] = NumberOf(param, param.max);
  schema["default"] = ParamToJson(param.otherwise);
  return schema;
}

Json ObjectSchema(std::string_view summary, const ParamSpec& keys) {
  Json schema = {{"type", "object"}};
  if (!summary.empty()) schema["description"] = summary;
  schema["additionalProperties"] = false;
  schema["properties"] = Json::object();
  for (const Param& param : keys) schema["properties"][std::string(param.name)] = SchemaOf(param);
  return schema;
}

Json PassSchema(const PassInfo& pass) {
  Json schema = ObjectSchema(pass.summary, pass.params);
  schema["properties"]["type"] = {{"const", pass.name}};
  schema["required"] = {"type"};
  return schema;
}

}  // namespace

std::string RenderConfigMarkdown() {
  std::string text(kIntroduction);
  text += "## Keys\n\n";
  for (const ConfigSection& section : ConfigSections()) {
    if (section.name.empty()) {
      text += Table("key", section.keys);
      text +=
          "Also `passes`, a list of objects each with a pass's name as `type` and its parameters, "
          "run "
          "in that order (absent: those of preset `int8`); `decisions`, an object from a "
          "`resolved_config.json`; and `$schema`, ignored.\n\n";
    } else {
      text += fmt::format("### `{}`\n\n{}\n\n", section.name, section.summary);
      text += Table("key", section.keys);
    }
  }
  text += "## Presets\n\n";
  for (const Preset& preset : Presets()) {
    text += fmt::format("### {}\n\n```json\n{}```\n\n", preset.name, preset.text);
  }
  text += "## Passes\n\n";
  for (const PassInfo* pass : AllPasses()) {
    text +=
        fmt::format("### {}\n\n{}{}. {} [More](passes/{}.md).\n\n", pass->name,
                    static_cast<char>(std::toupper(static_cast<unsigned char>(pass->summary[0]))),
                    pass->summary.substr(1), Exact(*pass), pass->name);
    if (!pass->params.empty()) text += Table("parameter", pass->params);
  }
  text.pop_back();
  return text;
}

std::string RenderConfigSchema() {
  Json root;
  Json sections = Json::object();
  for (const ConfigSection& section : ConfigSections()) {
    Json schema = ObjectSchema(section.summary, section.keys);
    if (section.name.empty()) {
      root = std::move(schema);
    } else {
      sections[std::string(section.name)] = std::move(schema);
    }
  }
  root["properties"].update(sections);
  Json passes = Json::array();
  for (const PassInfo* pass : AllPasses()) passes.push_back(PassSchema(*pass));
  root["properties"]["passes"] = {{"type", "array"}, {"items", {{"oneOf", passes}}}};
  root["properties"]["decisions"] = {{"type", "object"}};
  root["properties"]["$schema"] = {{"type", "string"}};
  Json schema = {{"$schema", "http://json-schema.org/draft-07/schema#"},
                 {"$id", "sparsefuse-1.json"},
                 {"title", "sparsefuse configuration"}};
  schema.update(root);
  return schema.dump(2) + "\n";
}

Json DescribePasses() {
  Json passes = Json::array();
  for (const PassInfo* pass : AllPasses()) {
    Json parameters = Json::array();
    for (const Param& param : pass->params) {
      Json entry = {{"name", param.name},
                    {"type", TypeName(param.otherwise)},
                    {"default", ParamToJson(param.otherwise)}};
      if (std::isfinite(param.min)) entry["minimum"] = NumberOf(param, param.min);
      if (std::isfinite(param.max)) entry["maximum"] = NumberOf(param, param.max);
      if (!param.choices.empty()) entry["choices"] = param.choices;
      entry["summary"] = param.summary;
      parameters.push_back(std::move(entry));
    }
    passes.push_back({{"name", pass->name},
                      {"summary", pass->summary},
                      {"exact", pass->exactness == Exactness::kLossless},
                      {"parameters", std::move(parameters)}});
  }
  return passes;
}

}  // namespace sparsefuse

#include "passes/framework/reference_docs.h"

#include <filesystem>

#include "passes/framework/config.h"
#include "tests/support/catch.h"
#include "tests/support/support.h"

namespace sparsefuse {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

TEST_CASE("docs/config.md and configs/schema.json are those of the program") {
  INFO(
      "to make them again: build/release/bin/sparsefuse passes --format markdown > docs/config.md; "
      "build/release/bin/sparsefuse passes --format schema > configs/schema.json");
  CHECK(test::ReadFile(test::SourceDir() / "docs/config.md") == RenderConfigMarkdown());
  CHECK(test::ReadFile(test::SourceDir() / "configs/schema.json") == RenderConfigSchema());
}

TEST_CASE("every pass has its page and its golden tests") {
  for (const PassInfo* pass : AllPasses()) {
    INFO(pass->name);
    CHECK(FindPass(pass->name) == pass);
    CHECK(
        fs::is_regular_file(test::SourceDir() / "docs/passes" / (std::string(pass->name) + ".md")));
    CHECK(fs::is_directory(test::SourceDir() / "tests/golden" / pass->name));
  }
  CHECK(FindPass("no-such-pass") == nullptr);
}

// Enough of JSON Schema for ours: which keys and types it allows.
bool Accepts(const json& schema, const json& value) {
  if (schema.contains("const")) return schema["const"] == value;
  if (schema.contains("enum") &&
      std::count(schema["enum"].begin(), schema["enum"].end(), value) == 0)
    return false;
  if (schema.contains("oneOf")) {
    return std::count_if(schema["oneOf"].begin(), schema["oneOf"].end(),
                         [&](const json& one) { return Accepts(one, value); }) == 1;
  }
  const auto is = [&](const std::string& type) {
    return type == "object"    ? value.is_object()
           : type == "array"   ? value.is_array()
           : type == "string"  ? value.is_string()
           : type == "boolean" ? value.is_boolean()
           : type == "integer" ? value.is_number_integer()
           : type == "null"    ? value.is_null()
                               : value.is_number();
  };
  const json types = schema["type"].is_array() ? schema["type"] : json::array({schema["type"]});
  if (std::none_of(types.begin(), types.end(), is)) return false;
  if (value.is_number() && value < schema.value("minimum", json(-1e300))) return false;
  if (value.is_number() && value > schema.value("maximum", json(1e300))) return false;
  if (value.is_array() && schema.contains("items")) {
    for (const json& item : value) {
      if (!Accepts(schema["items"], item)) return false;
    }
  }
  if (value.is_object() && schema.contains("properties")) {
    for (const auto& [key, item] : value.items()) {
      if (!schema["properties"].contains(key) || !Accepts(schema["properties"][key], item)) {
        return false;
      }
    }
    for (const json& key : schema.value("required", json::array())) {
      if (!value.contains(key)) return false;
    }
  }
  return true;
}

TEST_CASE("the schema accepts what the program accepts") {
  const json schema = json::parse(RenderConfigSchema());
  for (const Preset& preset : Presets()) {
    CHECK(Accepts(schema, json::parse(preset.text)));
    CHECK(Accepts(schema, ResolvedConfig(LoadPreset(preset.name))));
  }
  for (const char* text :
       {R"({"threads": -1})", R"({"pases": []})", R"({"passes": [{"type": "quantise"}]})",
        R"({"passes": [{}]})", R"({"passes": [{"type": "remove-dead", "x": 1}]})",
        R"({"goal": {"max_drop": 2}})", R"({"output": {"emit": "none"}})",
        R"({"evaluation": {"metrics": ["speed"]}})", R"({"measure": "yes"})"}) {
    INFO(text);
    CHECK_FALSE(Accepts(schema, json::parse(text)));
    CHECK_THROWS_AS(ParseConfig(text, "p.json", {}), UserError);
  }
}

TEST_CASE("pass descriptions hold every parameter") {
  const auto passes = DescribePasses();
  REQUIRE(passes.size() == AllPasses().size());
  for (size_t i = 0; i < passes.size(); ++i) {
    const PassInfo& info = *AllPasses()[i];
    CHECK(passes[i]["name"] == info.name);
    CHECK_FALSE(info.summary.empty());
    REQUIRE(passes[i]["parameters"].size() == info.params.size());
    for (size_t k = 0; k < info.params.size(); ++k) {
      CHECK(passes[i]["parameters"][k]["name"] == info.params[k].name);
      CHECK_FALSE(info.params[k].summary.empty());
    }
  }
}

}  // namespace
}  // namespace sparsefuse

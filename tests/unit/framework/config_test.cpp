#include "passes/framework/config.h"

#include <sys/stat.h>

#include "tests/support/catch.h"
#include "tests/support/error_of.h"
#include "tests/support/support.h"

namespace sparsefuse {
namespace {

using nlohmann::json;

std::string ConfigError(std::string_view text) {
  return test::ErrorOf(ErrorCode::kConfig, [&] { ParseConfig(text, "p.json", "/models"); });
}

TEST_CASE("a whole configuration is read") {
  const Config config = ParseConfig(R"({
      "$schema": "sparsefuse-1.json",
      "description": "all keys",
      "input_model": "model.onnx",
      "calibration_data": {"path": "../data/./c.npz", "samples": 64, "seed": 7},
      "evaluation": {"path": "/elsewhere/e.npz", "metrics": ["accuracy", "kl"]},
      "goal": {"max_drop": 0.01, "size_ratio": 0.3, "latency_ratio": 0.5},
      "passes": [{"type": "remove-dead"}, {"type": "quantize", "weights": "int8",
                                           "exclude": ["*head*"]}],
      "output": {"emit": "standard", "external_data": "never"},
      "verification": {"min_cosine": 0.99},
      "threads": 3, "seed": 5, "measure": false,
      "nodes_to_exclude": ["/head/.*"], "op_types_to_exclude": ["Gemm"],
      "decisions": {"quantize": {"x": 1}}
    })",
                                    "p.json", "/models");
  CHECK(config.description == "all keys");
  CHECK(config.input_model == "/models/model.onnx");
  CHECK(config.calibration_data.path == "/data/c.npz");
  CHECK(config.calibration_data.samples == 64);
  CHECK(config.calibration_data.seed == 7);
  CHECK(config.evaluation.path == "/elsewhere/e.npz");
  CHECK(config.evaluation.metrics == std::vector<std::string>{"accuracy", "kl"});
  CHECK(config.goal.max_drop == 0.01);
  CHECK(config.goal.size_ratio == 0.3);
  CHECK(config.goal.latency_ratio == 0.5);
  REQUIRE(config.passes.size() == 2);
  CHECK(config.passes[0].info->name == "remove-dead");
  CHECK(config.passes[1].info->name == "quantize");
  CHECK(config.passes[1].params.Strings("exclude") == std::vector<std::string>{"*head*"});
  CHECK(config.output.emit == Emit::kStandard);
  CHECK(config.output.external_data == ExternalData::kNever);
  CHECK(config.verification.min_cosine == 0.99);
  CHECK(config.threads == 3);
  CHECK(config.seed == 5);
  CHECK_FALSE(config.measure);
  CHECK(config.nodes_to_exclude.Match("/head/x"));
  CHECK(config.op_types_to_exclude == std::vector<std::string>{"Gemm"});
  CHECK(config.decisions["quantize"]["x"] == 1);
}

TEST_CASE("an empty configuration is preset int8") {
  const Config empty = ParseConfig("{}", "p.json", {});
  CHECK(empty.input_model.empty());
  CHECK_FALSE(empty.goal.max_drop.has_value());
  CHECK(empty.output.emit == Emit::kCustom);
  CHECK(ResolvedConfig(empty)["passes"] == ResolvedConfig(LoadPreset("int8"))["passes"]);
  CHECK(ParseConfig(R"({"passes": []})", "p.json", {}).passes.empty());
}

TEST_CASE("wrong configurations are refused with the place and the remedy") {
  struct Case {
    std::string text, line;
  };
  const Case cases[] = {
      {R"({"pases": []})", "p.json: $.pases: unknown key; did you mean \"passes\"?"},
      {R"({"goals": {}})", "p.json: $.goals: unknown key; did you mean \"goal\"?"},
      {R"({"goal": {"max_drp": 0.1}})",
       "p.json: $.goal.max_drp: unknown key; did you mean \"max_drop\"?"},
      {R"({"goal": {"type": "x"}})",
       "p.json: $.goal.type: unknown key; known here: \"max_drop\", \"size_ratio\", "
       "\"latency_ratio\""},
      {R"({"goal": {"max_drop": 2}})",
       "p.json: $.goal.max_drop: expected a number from 0 to 1, got 2"},
      {R"({"goal": 0.1})", "p.json: $.goal: expected an object, got 0.1"},
      {R"({"threads": -1})", "p.json: $.threads: expected an integer from 0 to 1024, got -1"},
      {R"({"seed": 1.5})", "p.json: $.seed: expected an integer from 0 to 4294967295, got 1.5"},
      {R"({"calibration_data": {"samples": 0}})",
       "p.json: $.calibration_data.samples: expected an integer from 1 to 1000000000, got 0"},
      {R"({"input_model": "a\u0000b"})",
       "p.json: $.input_model: expected a path, got text with a NUL character"},
      {R"({"output": {"emit": "standart"}})",
       "p.json: $.output.emit: expected one of \"custom\", \"standard\", got \"standart\"; did you "
       "mean \"standard\"?"},
      {R"({"passes": {}})", "p.json: $.passes: expected a list of passes, got {}"},
      {R"({"passes": ["quantize"]})",
       "p.json: $.passes[0]: expected an object, got \"quantize\"; {\"type\": \"quantize\"}"},
      {R"({"passes": [{"weights": "int8"}]})",
       "p.json: $.passes[0]: the key \"type\" is missing: the pass's name"},
      {R"({"passes": [{"type": 1}]})", "p.json: $.passes[0].type: expected a pass's name, got 1"},
      {R"({"passes": [{"type": "quantise"}]})",
       "p.json: $.passes[0].type: no pass is called \"quantise\"; did you mean \"quantize\"?"},
      {R"({"passes": [{"type": "make-coffee-now"}]})",
       "p.json: $.passes[0].type: no pass is called \"make-coffee-now\"; `sparsefuse passes` lists "
       "them"},
      {R"({"passes": [{"type": "remove-dead"}, {"type": "quantize", "wights": "int8"}]})",
       "p.json: $.passes[1].wights: unknown key; did you mean \"weights\"?"},
      {R"({"decisions": []})",
       "p.json: $.decisions: expected an object, got []; take it from a resolved_config.json"},
      {R"({"nodes_to_exclude": ["("]})",
       "p.json: $.nodes_to_exclude: \"(\" is not a usable regular expression: Unmatched ( or \\(; "
       "POSIX extended syntax, matched against whole node names: \"/encoder/.*\", \"fc[0-9]+\""},
      {"[]", "p.json: $: expected an object, got []"},
      {"{\"seed\": 1,\n \"seed\": 2}", "p.json: $.seed: the key is given twice"},
      {R"({"passes": [{"type": "quantize"}, {"type": "quantize", "type": "quantize"}]})",
       "p.json: $.passes[1].type: the key is given twice"},
      {R"({"decisions": {"a": [{}, [], {"b": 1, "c": 2, "b": 3}]}})",
       "p.json: $.decisions.a[2].b: the key is given twice"},
      {"\xEF\xBB\xBF{}",
       "p.json: the file starts with a byte-order mark; save it as UTF-8 without one"},
      {std::string("\xFF\xFE{\0}\0", 6),
       "p.json: the file starts with a byte-order mark; save it as UTF-8 without one"},
  };
  for (const Case& c : cases) {
    INFO(c.text);
    CHECK(ConfigError(c.text) == c.line);
  }
}

TEST_CASE("text that is not JSON is refused with line and column") {
  const auto starts_with = [](const std::string& line, const std::string& start) {
    INFO(line);
    CHECK(line.substr(0, start.size()) == start);
  };
  starts_with(ConfigError(""), "p.json: line 1, column 1: not valid JSON: ");
  starts_with(ConfigError("{\n  \"seed\" 1\n}"), "p.json: line 2, column 10: not valid JSON: ");
  starts_with(ConfigError("{\"seed\": 1,}"), "p.json: line 1, column 12: not valid JSON: ");
  starts_with(ConfigError("{} {}"), "p.json: line 1, column 4: not valid JSON: ");
  starts_with(ConfigError("{\"a\": \"\xff\"}"), "p.json: line 1, column 8: not valid JSON: ");
  starts_with(ConfigError("{\"seed\": NaN}"), "p.json: line 1, column 10: not valid JSON: ");
  starts_with(ConfigError("{\"threads\": 1e999}"), "p.json: not valid JSON: number overflow");
}

TEST_CASE("nesting is bounded") {
  const auto nested = [](int levels) {
    // The object and "decisions" are two of them.
    return "{\"decisions\": {\"a\": " + std::string(size_t(levels - 2), '[') +
           std::string(size_t(levels - 2), ']') + "}}";
  };
  CHECK_NOTHROW(ParseConfig(nested(64), "p.json", {}));
  CHECK(ConfigError(nested(65)).find("nested deeper than 64 levels") != std::string::npos);
  CHECK(ConfigError(std::string(100000, '[')).find("nested deeper") != std::string::npos);
}

TEST_CASE("configuration files that cannot be read") {
  const test::TempDir directory;
  const auto error_of = [](const std::filesystem::path& path) {
    try {
      LoadConfig(path);
    } catch (const UserError& error) {
      return std::string(ErrorName(error.code)) + " " + error.message;
    }
    return std::string("no error");
  };
  CHECK(error_of(directory / "none.json") == "E_READ no such configuration file");
  CHECK(error_of(directory.path()) == "E_READ not a regular file; expected a JSON configuration");
  const std::string fifo = (directory / "fifo").string();
  REQUIRE(mkfifo(fifo.c_str(), 0600) == 0);
  CHECK(error_of(fifo) == "E_READ not a regular file; expected a JSON configuration");
  test::WriteFile(directory / "large.json", std::string((16 << 20) + 1, ' '));
  CHECK(error_of(directory / "large.json") == "E_READ larger than 16 MiB: not a configuration");
}

TEST_CASE("paths are relative to the configuration, and to the place of the resolved one") {
  const test::TempDir directory;
  std::filesystem::create_directories(directory / "a" / "out");
  test::WriteFile(directory / "a/p.json", R"({"input_model": "../m.onnx",
      "calibration_data": {"path": "c.npz"}})");
  const Config config = LoadConfig(directory / "a/p.json");
  CHECK(config.input_model == directory / "m.onnx");
  CHECK(config.calibration_data.path == directory / "a/c.npz");
  const json resolved = ResolvedConfig(config, directory / "a/out");
  CHECK(resolved["input_model"] == "../../m.onnx");
  CHECK(resolved["calibration_data"]["path"] == "../c.npz");
  CHECK(resolved["evaluation"]["path"] == "");
}

TEST_CASE("a resolved configuration holds every key and repeats the run") {
  Config config = LoadPreset("standard-int8");
  config.seed = 9;
  config.goal.size_ratio = 0.25;
  config.nodes_to_exclude = {"x.*"};
  config.decisions["quantize"] = {{"layer", "float"}};
  const json resolved = ResolvedConfig(config);
  for (const ConfigSection& section : ConfigSections()) {
    const json& object = section.name.empty() ? resolved : resolved.at(std::string(section.name));
    for (const Param& key : section.keys) CHECK(object.contains(key.name));
  }
  const Config again = ParseConfig(resolved.dump(), "resolved_config.json", {});
  CHECK(ResolvedConfig(again) == resolved);
  CHECK(ConfigDigest(again) == ConfigDigest(config));
}

TEST_CASE("the digest follows what decides the bytes, and nothing else") {
  const Config config = LoadPreset("int8");
  const std::string digest = ConfigDigest(config);
  CHECK(digest.size() == 64);
  Config same = config;
  same.input_model = "/elsewhere/m.onnx";
  same.calibration_data.path = "/elsewhere/c.npz";
  same.threads = 7;
  same.measure = false;
  same.decisions["quantize"] = 1;
  same.description = "other words";
  CHECK(ConfigDigest(same) == digest);
  const auto changed = [&](const auto& change) {
    Config other = config;
    change(other);
    return ConfigDigest(other) != digest;
  };
  CHECK(changed([](Config& c) { c.seed = 1; }));
  CHECK(changed([](Config& c) { c.calibration_data.seed = 1; }));
  CHECK(changed([](Config& c) { c.output.emit = Emit::kStandard; }));
  CHECK(changed([](Config& c) { c.nodes_to_exclude = {"a"}; }));
  CHECK(changed([](Config& c) { c.passes.pop_back(); }));
}

TEST_CASE("every preset loads, under the name of its file") {
  REQUIRE(Presets().size() >= 2);
  for (const Preset& preset : Presets()) {
    INFO(preset.name);
    const Config config = LoadPreset(preset.name);
    CHECK_FALSE(config.passes.empty());
    CHECK_FALSE(config.description.empty());
    const auto file = test::SourceDir() / "configs" / (std::string(preset.name) + ".json");
    CHECK(test::ReadFile(file) == preset.text);
  }
  CHECK(LoadPreset("int8").output.emit == Emit::kCustom);
  CHECK(LoadPreset("standard-int8").output.emit == Emit::kStandard);
  CHECK(ResolvedConfig(LoadPreset("int8"))["passes"] ==
        ResolvedConfig(LoadPreset("standard-int8"))["passes"]);
}

TEST_CASE("an unknown preset is refused with the nearest name") {
  try {
    LoadPreset("int-8");
    FAIL("accepted");
  } catch (const UserError& error) {
    CHECK(error.Line() == "no preset is called \"int-8\"; did you mean \"int8\"?");
  }
}

}  // namespace
}  // namespace sparsefuse

#include "passes/framework/config.h"

#include <cmath>
#include <cstdio>
#include <fstream>
#include <functional>

#include "onnx_io/digest.h"
#include "passes/framework/strict_json.h"

namespace sparsefuse {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

// --- From the fields of Config to ParamValue and back
// ---------------------------------------------

constexpr std::string_view kEmitNames[] = {"custom", "standard"};
constexpr std::string_view kExternalNames[] = {"auto", "always", "never"};

template <typename Enum, size_t n>
Enum EnumOf(const ParamValue& value, const std::string_view (&names)[n]) {
  for (size_t i = 0; i < n; ++i) {
    if (names[i] == std::get<std::string>(value)) return static_cast<Enum>(i);
  }
  throw InternalError("a choice that is no enumerator");
}

ParamValue ToParam(bool x) { return x; }
ParamValue ToParam(int64_t x) { return x; }
ParamValue ToParam(uint64_t x) { return static_cast<int64_t>(x); }
ParamValue ToParam(double x) { return x; }
ParamValue ToParam(const std::optional<double>& x) { return x.value_or(kUnset); }
ParamValue ToParam(const std::string& x) { return x; }
ParamValue ToParam(const fs::path& x) { return x.string(); }
ParamValue ToParam(const std::vector<std::string>& x) { return x; }
ParamValue ToParam(const NodePatterns& x) { return x.expressions(); }
ParamValue ToParam(Emit x) { return std::string(kEmitNames[static_cast<size_t>(x)]); }
ParamValue ToParam(ExternalData x) { return std::string(kExternalNames[static_cast<size_t>(x)]); }

void FromParam(const ParamValue& value, bool& x) { x = std::get<bool>(value); }
void FromParam(const ParamValue& value, int64_t& x) { x = std::get<int64_t>(value); }
void FromParam(const ParamValue& value, uint64_t& x) {
  x = static_cast<uint64_t>(std::get<int64_t>(value));  // the table's minimum is 0
}
void FromParam(const ParamValue& value, double& x) { x = std::get<double>(value); }
void FromParam(const ParamValue& value, std::optional<double>& x) {
  const double number = std::get<double>(value);
  x = std::isnan(number) ? std::nullopt : std::optional(number);
}
void FromParam(const ParamValue& value, std::string& x) { x = std::get<std::string>(value); }
void FromParam(const ParamValue& value, fs::path& x) {
  const auto& text = std::get<std::string>(value);
  if (text.find('\0') != std::string::npos) {
    throw UserError(ErrorCode::kConfig, "expected a path, got text with a NUL character");
  }
  x = text;
}
void FromParam(const ParamValue& value, std::vector<std::string>& x) {
  x = std::get<std::vector<std::string>>(value);
}
void FromParam(const ParamValue& value, NodePatterns& x) {
  x = NodePatterns(std::get<std::vector<std::string>>(value));
}
void FromParam(const ParamValue& value, Emit& x) { x = EnumOf<Emit>(value, kEmitNames); }
void FromParam(const ParamValue& value, ExternalData& x) {
  x = EnumOf<ExternalData>(value, kExternalNames);
}

// --- The table
// ------------------------------------------------------------------------------------

struct Key {
  Param param;
  std::function<ParamValue(const Config&)> get;
  std::function<void(Config&, const ParamValue&)> set;
  bool is_path = false;
};

struct Limits {
  double min = -std::numeric_limits<double>::infinity();
  double max = std::numeric_limits<double>::infinity();
  std::vector<std::string> choices = {};
};

// A key whose value is config.*outer.*inner…, as given by `field`; the default is Config{}'s.
template <typename Field>
Key MakeKey(std::string_view name, Field field, std::string_view summary, Limits limits = {}) {
  Config defaults;
  using Type = std::remove_reference_t<decltype(field(defaults))>;
  return {.param = {.name = name,
                    .otherwise = ToParam(field(defaults)),
                    .summary = summary,
                    .min = limits.min,
                    .max = limits.max,
                    .choices = std::move(limits.choices)},
          .get =
              [field](const Config& config) {
                return ToParam(std::as_const(field(const_cast<Config&>(config))));
              },
          .set = [field](Config& config, const ParamValue& x) { FromParam(x, field(config)); },
          .is_path = std::is_same_v<Type, fs::path>};
}

#define SF_FIELD(member) \
  [](Config & config) -> auto& { return config.member; }

constexpr double kMaxSeed = 4294967295;

struct Section {
  std::string_view name, summary;
  std::vector<Key> keys;
};

const std::vector<Section>& Sections() {
  static const std::vector<Section> sections = {
      {"",
       "",
       {MakeKey("description", SF_FIELD(description), "What this configuration is for."),
        MakeKey("input_model", SF_FIELD(input_model), "The ONNX file to compress."),
        MakeKey("threads", SF_FIELD(threads), "Threads to use; 0: one for each core.", {0, 1024}),
        MakeKey("seed", SF_FIELD(seed), "Seed of every random choice.", {0, kMaxSeed}),
        MakeKey(
            "measure", SF_FIELD(measure),
            "Time layers on this machine and keep in float what is not faster. Without, nothing "
            "depends on timing."),
        MakeKey("nodes_to_exclude", SF_FIELD(nodes_to_exclude),
                "Nodes left as they are: POSIX extended regular expressions that match the whole "
                "node name."),
        MakeKey("op_types_to_exclude", SF_FIELD(op_types_to_exclude),
                "Operator types left as they are.")}},
      {"calibration_data",
       "Samples that the passes learn from; without them only passes that need none can run.",
       {MakeKey("path", SF_FIELD(calibration_data.path),
                "An .npz file, a folder of .npy files or of test_data_set_*."),
        MakeKey("samples", SF_FIELD(calibration_data.samples), "At most so many of its samples.",
                {1, 1e9}),
        MakeKey("seed", SF_FIELD(calibration_data.seed),
                "Seed of which samples are taken and how they are split.", {0, kMaxSeed})}},
      {"evaluation",
       "Labelled samples for the task metric before and after.",
       {MakeKey("path", SF_FIELD(evaluation.path), "As calibration_data.path."),
        MakeKey("metrics", SF_FIELD(evaluation.metrics),
                "What to report; empty: what fits the labels, and the distances to the original.",
                {.choices = {"accuracy", "perplexity", "mse", "mae", "agreement", "kl", "cosine",
                             "sqnr_db"}})}},
      {"goal",
       "What the result must reach: missed is exit code 9, the result is kept.",
       {MakeKey("max_drop", SF_FIELD(goal.max_drop),
                "Largest loss of the metric: absolute for accuracy and agreement, relative for "
                "perplexity, mse, mae.",
                {0, 1}),
        MakeKey("size_ratio", SF_FIELD(goal.size_ratio),
                "Largest size of the result over that of the input file.", {0, 1}),
        MakeKey("latency_ratio", SF_FIELD(goal.latency_ratio),
                "Largest latency of the result over that of the input.", {0, 10})}},
      {"output",
       "How the result is written.",
       {MakeKey("emit", SF_FIELD(output.emit),
                "custom: this tool's operators, each with a function body that runs anywhere; "
                "standard: operators of ONNX only.",
                {.choices = {std::begin(kEmitNames), std::end(kEmitNames)}}),
        MakeKey("external_data", SF_FIELD(output.external_data),
                "auto: weights in a file of their own when the model reaches 64 MiB.",
                {.choices = {std::begin(kExternalNames), std::end(kExternalNames)}}),
        MakeKey("targets", SF_FIELD(output.targets),
                "GPUs to compile kernels for that are made for the result's layers; needs CUDA's "
                "compiler, no GPU.",
                {.choices = {"cuda:sm_80", "cuda:sm_86", "cuda:sm_89", "cuda:sm_90a"}})}},
      {"verification",
       "What the result must pass before it is published: else exit code 8, nothing is written.",
       {MakeKey("min_cosine", SF_FIELD(verification.min_cosine),
                "Smallest mean cosine between an output of the result and the original's, after "
                "passes that are not exact.",
                {-1, 1})}}};
  return sections;
}

#undef SF_FIELD

ParamSpec SpecOf(const Section& section) {
  ParamSpec spec;
  for (const Key& key : section.keys) spec.push_back(key.param);
  return spec;
}

// --- Parsing
// --------------------------------------------------------------------------------------

void ReadSection(const Section& section, const json& object, const std::string& path,
                 Config& config) {
  const Params params = Params::Parse(SpecOf(section), object, path);
  for (const Key& key : section.keys) {
    try {
      key.set(config, params.Get(key.param.name));
    } catch (UserError& error) {
      error.At(fmt::format("{}.{}", path, key.param.name));
      throw;
    }
  }
}

ConfiguredPass ReadPass(const json& entry, const std::string& path) {
  const auto fail = [](const std::string& at, std::string what, std::string hint) {
    throw UserError(ErrorCode::kConfig, std::move(what), std::move(hint)).At(at);
  };
  if (!entry.is_object()) {
    fail(path, fmt::format("expected an object, got {}", Brief(entry)), "{\"type\": \"quantize\"}");
  }
  const auto type = entry.find("type");
  if (type == entry.end()) fail(path, "the key \"type\" is missing: the pass's name", "");
  const std::string at = path + ".type";
  if (!type->is_string()) {
    fail(at, fmt::format("expected a pass's name, got {}", Brief(*type)), "");
  }
  const PassInfo* info = FindPass(type->get_ref<const std::string&>());
  if (!info) {
    std::vector<std::string> names;
    for (const PassInfo* pass : AllPasses()) names.emplace_back(pass->name);
    const std::string nearest = Nearest(type->get_ref<const std::string&>(), names);
    fail(at, fmt::format("no pass is called {}", Brief(*type)),
         nearest.empty() ? "`sparsefuse passes` lists them"
                         : fmt::format("did you mean \"{}\"?", nearest));
  }
  return {info, Params::Parse(info->params, entry, path)};
}

void ReadPasses(const json& root, Config& config) {
  const auto passes = root.find("passes");
  if (passes == root.end()) {
    config.passes = LoadPreset("int8").passes;
    return;
  }
  if (!passes->is_array()) {
    throw UserError(ErrorCode::kConfig,
                    fmt::format("expected a list of passes, got {}", Brief(*passes)))
        .At("$.passes");
  }
  for (size_t i = 0; i < passes->size(); ++i) {
    config.passes.push_back(ReadPass((*passes)[i], fmt::format("$.passes[{}]", i)));
  }
}

Config ReadConfig(const json& root) {
  const Section& top = Sections().front();
  std::vector<std::string> known = {"$schema", "passes", "decisions"};
  for (const Key& key : top.keys) known.emplace_back(key.param.name);
  for (const Section& section : Sections()) {
    if (!section.name.empty()) known.emplace_back(section.name);
  }
  CheckKeys(root, known, "$");

  Config config;
  json flat = json::object();
  for (const Key& key : top.keys) {
    const auto found = root.find(key.param.name);
    if (found != root.end()) flat[std::string(key.param.name)] = *found;
  }
  ReadSection(top, flat, "$", config);
  for (const Section& section : Sections()) {
    const auto found = root.find(section.name);
    if (section.name.empty() || found == root.end()) continue;
    const std::string path = fmt::format("$.{}", section.name);
    std::vector<std::string> keys;
    for (const Key& key : section.keys) keys.emplace_back(key.param.name);
    CheckKeys(*found, keys, path);  // here "type" is a key like any other
    ReadSection(section, *found, path, config);
  }
  ReadPasses(root, config);
  if (const auto decisions = root.find("decisions"); decisions != root.end()) {
    if (!decisions->is_object()) {
      throw UserError(ErrorCode::kConfig,
                      fmt::format("expected an object, got {}", Brief(*decisions)),
                      "take it from a resolved_config.json")
          .At("$.decisions");
    }
    config.decisions = *decisions;
  }
  return config;
}

// The paths of a configuration, by its table.
template <typename Change>
void ForEachPath(Config& config, const Change& change) {
  for (const Section& section : Sections()) {
    for (const Key& key : section.keys) {
      if (!key.is_path) continue;
      const fs::path path = std::get<std::string>(key.get(config));
      if (!path.empty()) key.set(config, change(path).string());
    }
  }
}

std::string ReadWholeFile(const fs::path& path) {
  constexpr uintmax_t kLargest = 16 << 20;
  const auto fail = [](std::string what) { throw UserError(ErrorCode::kRead, std::move(what)); };
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  if (status.type() == fs::file_type::not_found) fail("no such configuration file");
  if (error) fail("cannot be read: " + error.message());
  if (!fs::is_regular_file(status)) fail("not a regular file; expected a JSON configuration");
  const uintmax_t size = fs::file_size(path, error);
  if (error || size > kLargest) fail("larger than 16 MiB: not a configuration");
  std::ifstream in(path, std::ios::binary);
  std::string text(size, '\0');
  if (!in || !in.read(text.data(), static_cast<std::streamsize>(size))) {
    fail("cannot be read; check its permissions");
  }
  return text;
}

}  // namespace

Config ParseConfig(std::string_view text, std::string_view file, const fs::path& directory) {
  try {
    Config config = ReadConfig(ParseStrictJson(text));
    ForEachPath(config,
                [&](const fs::path& path) { return (directory / path).lexically_normal(); });
    return config;
  } catch (UserError& error) {
    error.InFile(file);
    throw;
  }
}

Config LoadConfig(const fs::path& path) {
  std::string text;
  try {
    text = ReadWholeFile(path);
  } catch (UserError& error) {
    error.InFile(path.string());
    throw;
  }
  return ParseConfig(text, path.string(), path.parent_path());
}

Config LoadPreset(std::string_view name) {
  std::vector<std::string> names;
  for (const Preset& preset : Presets()) {
    if (preset.name == name) {
      return ParseConfig(preset.text, fmt::format("preset {}", name), {});
    }
    names.emplace_back(preset.name);
  }
  const std::string nearest = Nearest(name, names);
  throw UserError(ErrorCode::kConfig, fmt::format("no preset is called \"{}\"", Printable(name)),
                  nearest.empty() ? fmt::format("there are {}", fmt::join(names, ", "))
                                  : fmt::format("did you mean \"{}\"?", nearest));
}

json ResolvedConfig(const Config& config, const fs::path& directory) {
  Config shown = config;
  if (!directory.empty()) {
    const fs::path base = fs::weakly_canonical(fs::absolute(directory));
    ForEachPath(shown, [&](const fs::path& path) {
      return fs::weakly_canonical(fs::absolute(path)).lexically_proximate(base);
    });
  }
  json root = {{"$schema", "sparsefuse-1.json"}};
  for (const Section& section : Sections()) {
    json& object = section.name.empty() ? root : root[std::string(section.name)];
    for (const Key& key : section.keys) {
      object[std::string(key.param.name)] = ParamToJson(key.get(shown));
    }
  }
  root["passes"] = json::array();
  for (const ConfiguredPass& pass : config.passes) {
    json entry = pass.params.ToJson();
    entry["type"] = pass.info->name;
    root["passes"].push_back(std::move(entry));
  }
  root["decisions"] = config.decisions;
  return root;
}

std::string ConfigDigest(const Config& config) {
  json root = ResolvedConfig(config);
  for (const char* key : {"$schema", "description", "input_model", "threads", "measure",
                          "decisions", "evaluation", "verification"}) {
    root.erase(key);
  }
  root["calibration_data"].erase("path");
  root["output"].erase("targets");
  const std::string text = root.dump(-1, ' ', true);
  return Sha256Hex(std::as_bytes(std::span(text)));
}

std::vector<ConfigSection> ConfigSections() {
  std::vector<ConfigSection> sections;
  for (const Section& section : Sections()) {
    sections.push_back({section.name, section.summary, SpecOf(section)});
  }
  return sections;
}

}  // namespace sparsefuse

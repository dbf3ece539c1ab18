// The configuration of a run: one JSON file, or a preset, with the command line's flags written
// over it. Every key is described once, in config.cpp's table: parsing, unknown-key errors,
// resolved_config.json, docs/config.md and configs/schema.json follow from it.

#ifndef SPARSEFUSE_PASSES_FRAMEWORK_CONFIG_H_
#define SPARSEFUSE_PASSES_FRAMEWORK_CONFIG_H_

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "onnx_io/writer.h"
#include "passes/framework/context.h"
#include "passes/framework/pass.h"

namespace sparsefuse {

struct ConfiguredPass {
  const PassInfo* info;
  Params params;
};

struct Config {
  std::string description;
  std::filesystem::path input_model;  // paths: empty = not given
  struct CalibrationData {
    std::filesystem::path path;
    int64_t samples = 512;
    uint64_t seed = 0;
  } calibration_data;
  struct Evaluation {
    std::filesystem::path path;
    std::vector<std::string> metrics;  // empty: chosen by the data
  } evaluation;
  struct Goal {
    std::optional<double> max_drop, size_ratio, latency_ratio;
  } goal;
  std::vector<ConfiguredPass> passes;
  struct Output {
    Emit emit = Emit::kCustom;
    ExternalData external_data = ExternalData::kAuto;
    std::vector<std::string> targets;  // "cuda:sm_90a": kernels made for the result
  } output;
  struct Verification {
    double min_cosine = 0.95;
  } verification;
  int64_t threads = 0;  // 0: one for each core
  uint64_t seed = 0;
  bool measure = true;
  NodePatterns nodes_to_exclude;
  std::vector<std::string> op_types_to_exclude;
  nlohmann::json decisions = nlohmann::json::object();
};

// UserErrors with the file's name: E_READ (missing, not a regular file, over 16 MiB), E_CONFIG with
// the JSON path or line. Relative paths in it are resolved against its directory. Without the key
// "passes" those of preset int8 are taken.
Config LoadConfig(const std::filesystem::path& path);

// A ready configuration that lies in the program. E_CONFIG, with the nearest name, for an unknown
// one.
Config LoadPreset(std::string_view name);

// From text; `file` is its name in messages, `directory` what relative paths are resolved against.
Config ParseConfig(std::string_view text, std::string_view file,
                   const std::filesystem::path& directory);

// The files configs/*.json, put into the program when it is built (configs/embed.cmake).
struct Preset {
  std::string_view name, text;
};
const std::vector<Preset>& Presets();

// Every key with its value, defaults filled in: a configuration that repeats the run. Paths are
// relative to `directory`, where it will lie; if that is empty they are as they are.
nlohmann::json ResolvedConfig(const Config& config, const std::filesystem::path& directory = {});

// SHA-256, in hexadecimal, of what decides the output's bytes: not of paths, threads, evaluation,
// nor of decisions, so that a run and its repetition with the decisions recorded have the same
// digest.
std::string ConfigDigest(const Config& config);

// The table, for documentation. The section named "" is the top level.
struct ConfigSection {
  std::string_view name, summary;
  ParamSpec keys;
};
std::vector<ConfigSection> ConfigSections();

}  // namespace sparsefuse

#endif  // SPARSEFUSE_PASSES_FRAMEWORK_CONFIG_H_

// Arguments → one plain struct a verb. No verb's work is done here.

#ifndef SPARSEFUSE_CLI_COMMAND_LINE_H_
#define SPARSEFUSE_CLI_COMMAND_LINE_H_

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "passes/cuda/cost.h"
#include "passes/engine/engine.h"
#include "passes/framework/context.h"

namespace sparsefuse {

enum class Format { kHuman, kJson, kMarkdown, kSchema };

// Of every verb.
struct CommonOptions {
  Format format = Format::kHuman;
  int verbosity = 0;  // -q −1, -v 1
  std::filesystem::path log_file;
  bool progress = true;
};

// Absent optionals leave the configuration's value.
struct CompressOptions {
  CommonOptions common;
  std::filesystem::path model, output, config;
  std::string preset;
  std::filesystem::path calibration_data, eval_data;
  std::optional<double> max_drop, target_size, target_latency;
  bool overwrite = false, dry_run = false;
  std::optional<Emit> emit;
  std::optional<int64_t> threads, seed;
  std::vector<std::string> nodes_to_exclude, op_types_to_exclude;
  std::string dump_after;            // a pass, or "all"
  std::vector<std::string> targets;  // "cuda:sm_90a"
  std::filesystem::path operator_library;
};

struct AnalyzeOptions {
  CommonOptions common;
  std::filesystem::path model, calibration_data;
  std::filesystem::path output;  // folder; empty: nothing is written
  bool overwrite = false;
  std::optional<int64_t> threads, seed;
  std::vector<std::string> nodes_to_exclude, op_types_to_exclude;
};

struct CompileOptions {
  CommonOptions common;
  std::filesystem::path model;
  std::filesystem::path output;  // folder; empty: the model's
  std::vector<std::string> targets;
  int64_t rows = kManyRows;  // that tiles are chosen for
  bool measure = true;       // tiles, where there is a GPU
  std::filesystem::path operator_library;
  bool overwrite = false;
};

struct EvalOptions {
  CommonOptions common;
  std::filesystem::path model, eval_data, reference;
  std::optional<int64_t> threads, seed;  // threads: default one for each core
  std::filesystem::path operator_library;
};

struct BenchmarkOptions {
  CommonOptions common;
  std::filesystem::path model;
  std::vector<std::filesystem::path> against;
  std::filesystem::path data;
  std::map<std::string, std::vector<int64_t>> shapes;  // input → dims, of the made-up inputs
  std::vector<int64_t> batches;                        // empty: 1 and 8
  int64_t threads = 1;
  Device device = Device::kCpu;
  std::filesystem::path operator_library;
};

struct InspectOptions {
  CommonOptions common;
  std::filesystem::path model;
};

struct PassesOptions {
  CommonOptions common;
  std::string name;  // empty: all
};

struct KernelsOptions {
  CommonOptions common;
  std::filesystem::path operator_library;
  std::optional<std::pair<int64_t, int64_t>> shape;  // K, N of a layer to time
  std::vector<int64_t> rows;                         // empty: 1 and 128
  std::optional<double> density;                     // of block-sparse forms; absent: none
  int64_t threads = 1;
};

// --help
struct HelpOptions {
  CommonOptions common;
  std::string text;
};

// --version
struct VersionOptions {
  CommonOptions common;
};

using Command =
    std::variant<HelpOptions, VersionOptions, CompressOptions, AnalyzeOptions, CompileOptions,
                 EvalOptions, BenchmarkOptions, InspectOptions, PassesOptions, KernelsOptions>;

// UserError E_USAGE; an unknown verb or flag is answered with the nearest one.
Command ParseCommandLine(int argc, const char* const* argv);

// Whether "--format json" stands among the arguments: known even when they cannot be parsed, so
// that the error comes in the form that was asked for.
bool WantsJson(int argc, const char* const* argv);

}  // namespace sparsefuse

#endif  // SPARSEFUSE_CLI_COMMAND_LINE_H_

#include "cli/command_line.h"

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <algorithm>
#include <charconv>
#include <string_view>

#include "kernels/linear/pack.h"
#include "onnx_io/error.h"

namespace sparsefuse {
namespace {

constexpr std::string_view kSummary =
    "Takes a trained ONNX model and returns one that is smaller and faster and still right.\n"
    "Exit codes and errors: docs/errors.md. Configuration: docs/config.md.";

constexpr std::string_view kEnvironmentHelp =
    "Environment, wherever the library is loaded:\n"
    "  SPARSEFUSE_ISA=NAME   this kernel instead of the best that the CPU can run\n"
    "  SPARSEFUSE_GATE=off|decode|always\n"
    "                        when nested weights may be read in 4 bits: never, for at most 8 rows\n"
    "                        at a time (the default), for any number\n"
    "  SPARSEFUSE_CUDA_CODE=FOLDER\n"
    "                        on a GPU, the kernels that `sparsefuse compile` made for the model";

[[noreturn]] void UsageError(std::string what, std::string hint = {}) {
  throw UserError(ErrorCode::kUsage, std::move(what), std::move(hint));
}

// "1x3x32x32"; empty if it is none.
std::vector<int64_t> ParseDims(std::string_view text) {
  std::vector<int64_t> dims;
  for (size_t at = 0; at <= text.size();) {
    const size_t end = std::min(text.find('x', at), text.size());
    int64_t dim = 0;
    const auto [stop, error] = std::from_chars(text.data() + at, text.data() + end, dim);
    if (error != std::errc() || stop != text.data() + end || dim <= 0) return {};
    dims.push_back(dim);
    at = end + 1;
  }
  return dims;
}

// "name=1x3x32x32", split at the last '=': names may hold one.
std::pair<std::string, std::vector<int64_t>> ParseShape(const std::string& text) {
  const size_t equals = text.rfind('=');
  std::vector<int64_t> dims;
  if (equals != std::string::npos && equals > 0) dims = ParseDims(text.substr(equals + 1));
  if (dims.empty()) {
    UsageError(fmt::format("--shape \"{}\" is no input name with its dims", Printable(text)),
               "write --shape input=1x3x32x32");
  }
  return {text.substr(0, equals), dims};
}

// "cuda:sm_80,sm_90a", split at commas: a name without "cuda:" has that of the one before it.
std::vector<std::string> SplitTargets(const std::vector<std::string>& names) {
  std::vector<std::string> targets;
  for (const std::string& name : names) {
    const bool whole = name.find(':') != std::string::npos || targets.empty();
    targets.push_back(whole ? name : targets.back().substr(0, targets.back().find(':') + 1) + name);
  }
  return targets;
}

// The parser with the structs that it fills.
class CommandLine {
 public:
  CommandLine();
  Command Parse(int argc, const char* const* argv);

 private:
  CLI::App* AddVerb(const char* name, const char* summary, CommonOptions& common,
                    std::vector<std::string> formats = {"human", "json"});
  void AddCompress();
  void AddAnalyze();
  void AddCompile();
  void AddEval();
  void AddBenchmark();
  void AddInspect();
  void AddPasses();
  void AddKernels();
  std::vector<std::string> Verbs() const;
  [[noreturn]] void UnknownArgument(const CLI::App& verb) const;
  Command Chosen();

  CLI::App app_{std::string(kSummary), "sparsefuse"};
  CLI::App *compress_verb_, *analyze_verb_, *compile_verb_, *eval_verb_, *benchmark_verb_,
      *inspect_verb_, *passes_verb_, *kernels_verb_;
  CompressOptions compress_;
  AnalyzeOptions analyze_;
  CompileOptions compile_;
  EvalOptions eval_;
  BenchmarkOptions benchmark_;
  InspectOptions inspect_;
  PassesOptions passes_;
  KernelsOptions kernels_;
  CommonOptions version_;
};

void AddFormat(CLI::App* app, CommonOptions& common, std::vector<std::string> formats) {
  static const std::vector<std::string> kNames = {"human", "json", "markdown", "schema"};
  app->add_option_function<std::string>(
         "--format",
         [&common](const std::string& name) {
           const auto found = std::find(kNames.begin(), kNames.end(), name);
           common.format = static_cast<Format>(found - kNames.begin());
         },
         "form of the result on standard output")
      ->check(CLI::IsMember(std::move(formats)))
      ->type_name("FORMAT");
}

void AddVersion(CLI::App* app) {
  app->add_flag_callback(
      "--version", [] { throw CLI::CallForVersion("", 0); }, "versions of the tool and its parts");
}

CommandLine::CommandLine() {
  AddFormat(&app_, version_, {"human", "json"});
  AddVersion(&app_);
  app_.require_subcommand(0, 1);
  AddCompress();
  AddAnalyze();
  AddCompile();
  AddEval();
  AddBenchmark();
  AddInspect();
  AddPasses();
  AddKernels();
}

CLI::App* CommandLine::AddVerb(const char* name, const char* summary, CommonOptions& common,
                               std::vector<std::string> formats) {
  CLI::App* verb = app_.add_subcommand(name, summary);
  AddFormat(verb, common, std::move(formats));
  verb->add_flag_callback(
      "-v,--verbose", [&common] { common.verbosity = 1; }, "say more");
  verb->add_flag_callback(
      "-q,--quiet", [&common] { common.verbosity = -1; }, "errors only");
  verb->add_option("--log-file", common.log_file, "append everything said to this file")
      ->type_name("FILE");
  verb->add_flag_callback(
      "--no-progress", [&common] { common.progress = false; }, "no progress line on a terminal");
  AddVersion(verb);
  return verb;
}

void AddOperatorLibrary(CLI::App* verb, std::filesystem::path& library) {
  verb->add_option("--operator-library", library,
                   "libsparsefuse_ops.so to use (default: the one beside the tool)")
      ->type_name("FILE");
}

CLI::Option* AddThreads(CLI::App* verb, std::optional<int64_t>& threads) {
  return verb->add_option("--threads", threads, "threads (default: one for each core)")
      ->check(CLI::Range(1, 1024))
      ->type_name("N");
}

CLI::Option* AddSeed(CLI::App* verb, std::optional<int64_t>& seed) {
  return verb->add_option("--seed", seed, "seed of every random choice")
      ->check(CLI::Range(int64_t{0}, int64_t{4294967295}))
      ->type_name("N");
}

void AddExclusions(CLI::App* verb, std::vector<std::string>& nodes,
                   std::vector<std::string>& op_types) {
  verb->add_option("--nodes-to-exclude", nodes,
                   "leave nodes alone whose whole name matches (POSIX extended); may be repeated")
      ->allow_extra_args(false)
      ->type_name("REGEX");
  verb->add_option("--op-types-to-exclude", op_types,
                   "leave these operator types alone, separated by commas")
      ->allow_extra_args(false)
      ->delimiter(',')
      ->type_name("LIST");
}

void AddTargets(CLI::App* verb, std::vector<std::string>& targets) {
  verb->add_option_function<std::vector<std::string>>(
          "--target",
          [&targets](const std::vector<std::string>& names) { targets = SplitTargets(names); },
          "kernels made for this model's layers: cuda:sm_80,sm_90a (needs nvcc, no GPU)")
      ->allow_extra_args(false)
      ->delimiter(',')
      ->type_name("LIST");
}

void CommandLine::AddCompress() {
  CompressOptions& o = compress_;
  CLI::App* verb = compress_verb_ = AddVerb(
      "compress", "compress a model, verify the result and publish it in a folder", o.common);
  verb->add_option("-m,--model", o.model, "ONNX file")->type_name("FILE");
  verb->add_option("-o,--output", o.output, "folder for the result; made if missing")
      ->type_name("FOLDER");
  auto* config = verb->add_option("-c,--config", o.config, "JSON configuration")->type_name("FILE");
  verb->add_option("--preset", o.preset, "ready configuration (default: int8)")
      ->type_name("NAME")
      ->excludes(config);
  verb->add_option("--calibration-data", o.calibration_data,
                   "samples the passes learn from: .npz, folder of .npy or of test_data_set_*")
      ->type_name("DATA");
  verb->add_option("--eval-data", o.eval_data, "labelled samples for the metric before and after")
      ->type_name("DATA");
  verb->add_option("--max-drop", o.max_drop, "goal: largest loss of the metric")
      ->check(CLI::Range(0.0, 1.0))
      ->type_name("X");
  verb->add_option("--target-size", o.target_size, "goal: size over the input file's")
      ->check(CLI::Range(0.0, 1.0))
      ->type_name("RATIO");
  verb->add_option("--target-latency", o.target_latency, "goal: latency over the input's")
      ->check(CLI::Range(0.0, 10.0))
      ->type_name("RATIO");
  verb->add_flag("--overwrite", o.overwrite, "replace an existing result");
  verb->add_flag("--dry-run", o.dry_run, "show what would be done; nothing is written");
  verb->add_option_function<std::string>(
          "--emit",
          [&o](const std::string& name) {
            o.emit = name == "custom" ? Emit::kCustom : Emit::kStandard;
          },
          "custom: this tool's operators with function bodies; standard: operators of ONNX only")
      ->check(CLI::IsMember({"custom", "standard"}))
      ->type_name("WHAT");
  AddThreads(verb, o.threads);
  AddSeed(verb, o.seed);
  AddExclusions(verb, o.nodes_to_exclude, o.op_types_to_exclude);
  verb->add_option("--dump-after", o.dump_after,
                   "write the model after this pass, or after \"all\", as text to <output>/dumps")
      ->type_name("PASS");
  AddTargets(verb, o.targets);
  AddOperatorLibrary(verb, o.operator_library);
}

void CommandLine::AddAnalyze() {
  AnalyzeOptions& o = analyze_;
  CLI::App* verb = analyze_verb_ =
      AddVerb("analyze", "measure what fewer heads, neurons, channels, bits and ranks would cost",
              o.common);
  verb->add_option("-m,--model", o.model, "ONNX file")->type_name("FILE");
  verb->add_option("--calibration-data", o.calibration_data,
                   "samples to measure on: .npz, folder of .npy or of test_data_set_*")
      ->type_name("DATA");
  verb->add_option("-o,--output", o.output, "folder for sensitivity.json; made if missing")
      ->type_name("FOLDER");
  verb->add_flag("--overwrite", o.overwrite, "replace an existing sensitivity.json");
  AddThreads(verb, o.threads);
  AddSeed(verb, o.seed);
  AddExclusions(verb, o.nodes_to_exclude, o.op_types_to_exclude);
}

void CommandLine::AddCompile() {
  CompileOptions& o = compile_;
  CLI::App* verb = compile_verb_ = AddVerb(
      "compile", "compile GPU kernels that are made for a compressed model's layers", o.common);
  verb->add_option("-m,--model", o.model, "ONNX file")->type_name("FILE");
  verb->add_option("-o,--output", o.output, "folder for the code (default: the model's)")
      ->type_name("FOLDER");
  AddTargets(verb, o.targets);
  verb->add_option("--rows", o.rows, "rows of the input that tiles are chosen for (default: 512)")
      ->check(CLI::Range(17, 1048576))
      ->type_name("N");
  verb->add_flag_callback(
      "--no-measure", [&o] { o.measure = false; },
      "choose tiles by the cost model even where there is a GPU");
  verb->add_flag("--overwrite", o.overwrite, "replace existing code");
  AddOperatorLibrary(verb, o.operator_library);
}

void CommandLine::AddEval() {
  EvalOptions& o = eval_;
  CLI::App* verb = eval_verb_ = AddVerb("eval", "measure a model's task metric on data", o.common);
  verb->add_option("-m,--model", o.model, "ONNX file")->type_name("FILE");
  verb->add_option("--eval-data", o.eval_data, ".npz, folder of .npy or of test_data_set_*")
      ->type_name("DATA");
  verb->add_option("--reference", o.reference, "original to compare with")->type_name("FILE");
  AddThreads(verb, o.threads);
  AddSeed(verb, o.seed);
  AddOperatorLibrary(verb, o.operator_library);
}

void CommandLine::AddBenchmark() {
  BenchmarkOptions& o = benchmark_;
  CLI::App* verb = benchmark_verb_ =
      AddVerb("benchmark", "time models against each other, interleaved", o.common);
  verb->add_option("-m,--model", o.model, "ONNX file; the ratios are over it")->type_name("FILE");
  verb->add_option("--against", o.against, "other models with the same inputs")->type_name("FILE");
  verb->add_option("--data", o.data, "inputs: .npz, folder of .npy or of test_data_set_*")
      ->type_name("DATA");
  verb->add_option_function<std::vector<std::string>>(
          "--shape",
          [&o](const std::vector<std::string>& shapes) {
            for (const std::string& text : shapes) o.shapes.insert(ParseShape(text));
          },
          "dims of a made-up input, as name=1x3x32x32; may be repeated")
      ->allow_extra_args(false)
      ->type_name("SHAPE");
  verb->add_option("--batch", o.batches, "batch sizes, separated by commas (default: 1,8)")
      ->allow_extra_args(false)
      ->delimiter(',')
      ->check(CLI::Range(1, 65536))
      ->type_name("LIST");
  verb->add_option("--threads", o.threads, "threads (default: 1)")
      ->check(CLI::Range(1, 1024))
      ->type_name("N");
  verb->add_option_function<std::string>(
          "--device",
          [&o](const std::string& name) {
            o.device = name == "cuda" ? Device::kCuda : Device::kCpu;
          },
          "cpu (default), or cuda: ONNX Runtime's CUDA provider, where it has one")
      ->check(CLI::IsMember({"cpu", "cuda"}))
      ->type_name("WHAT");
  AddOperatorLibrary(verb, o.operator_library);
}

void CommandLine::AddInspect() {
  CLI::App* verb = inspect_verb_ = AddVerb(
      "inspect", "show a model's structure, sizes and what can be compressed", inspect_.common);
  verb->add_option("model,-m,--model", inspect_.model, "ONNX file")->type_name("FILE");
}

void CommandLine::AddPasses() {
  CLI::App* verb = passes_verb_ = AddVerb("passes", "list the passes, or one with its parameters",
                                          passes_.common, {"human", "json", "markdown", "schema"});
  verb->add_option("name", passes_.name, "a pass")->type_name("NAME");
}

void CommandLine::AddKernels() {
  KernelsOptions& o = kernels_;
  CLI::App* verb = kernels_verb_ = AddVerb(
      "kernels", "show the operator library: its kernels and which this machine uses", o.common);
  verb->add_option_function<std::string>(
          "--shape",
          [&o](const std::string& text) {
            const std::vector<int64_t> dims = ParseDims(text);
            if (dims.size() != 2 || dims[0] > kMaxInputs || dims[1] > kMaxOutputs) {
              UsageError(fmt::format("--shape \"{}\" is no size of a layer", Printable(text)),
                         "write inputs x outputs, as in --shape 768x3072");
            }
            o.shape = {dims[0], dims[1]};
          },
          "times of a layer with so many inputs and outputs, measured or remembered")
      ->type_name("KxN");
  verb->add_option("--rows", o.rows, "rows of its input, separated by commas (default: 1,128)")
      ->allow_extra_args(false)
      ->delimiter(',')
      ->check(CLI::Range(1, 1048576))
      ->type_name("LIST");
  verb->add_option("--density", o.density, "with block-sparse forms that keep this share of blocks")
      ->check(CLI::Range(0.0, 1.0))
      ->type_name("X");
  verb->add_option("--threads", o.threads, "threads to time with (default: 1)")
      ->check(CLI::Range(1, 1024))
      ->type_name("N");
  AddOperatorLibrary(verb, o.operator_library);
  verb->footer(std::string(kEnvironmentHelp));
}

std::vector<std::string> CommandLine::Verbs() const {
  std::vector<std::string> names;
  for (const CLI::App* verb : app_.get_subcommands([](const CLI::App*) { return true; })) {
    names.push_back(verb->get_name());
  }
  return names;
}

void CommandLine::UnknownArgument(const CLI::App& verb) const {
  const std::vector<std::string> left = app_.remaining(true);
  const std::string word = left.empty() ? "" : left.front().substr(0, left.front().find('='));
  if (word.empty() || word[0] != '-') {
    UsageError(fmt::format("unexpected argument \"{}\"", Printable(word)));
  }
  std::vector<std::string> flags;
  for (const CLI::Option* option : verb.get_options()) {
    for (const std::string& name : option->get_lnames()) flags.push_back("--" + name);
    for (const std::string& name : option->get_snames()) flags.push_back("-" + name);
  }
  const std::string nearest = Nearest(word, flags);
  UsageError(fmt::format("unknown option {}", Printable(word)),
             nearest.empty() ? fmt::format("`{} --help` lists them", verb.get_name())
                             : fmt::format("did you mean {}?", nearest));
}

// The log is appended to a file: to one that is read it would do harm.
void CheckLogFile(const CommonOptions& common, const std::vector<std::filesystem::path>& inputs) {
  std::error_code ignored;
  for (const std::filesystem::path& input : inputs) {
    if (std::filesystem::equivalent(common.log_file, input, ignored)) {
      UsageError("--log-file names an input", "name another file");
    }
  }
}

Command CommandLine::Chosen() {
  const auto require = [](bool given, const char* flag) {
    if (!given) UsageError(fmt::format("{} is missing", flag));
  };
  if (*compress_verb_) {
    require(!compress_.model.empty() || !compress_.config.empty(), "-m (the model)");
    require(!compress_.output.empty() || compress_.dry_run, "-o (the output folder)");
    CheckLogFile(compress_.common, {compress_.model, compress_.config, compress_.calibration_data,
                                    compress_.eval_data});
    return compress_;
  }
  if (*analyze_verb_) {
    require(!analyze_.model.empty(), "-m (the model)");
    require(!analyze_.calibration_data.empty(), "--calibration-data");
    CheckLogFile(analyze_.common, {analyze_.model, analyze_.calibration_data});
    return analyze_;
  }
  if (*compile_verb_) {
    require(!compile_.model.empty(), "-m (the model)");
    require(!compile_.targets.empty(), "--target");
    CheckLogFile(compile_.common, {compile_.model});
    return compile_;
  }
  if (*eval_verb_) {
    require(!eval_.model.empty(), "-m (the model)");
    require(!eval_.eval_data.empty(), "--eval-data");
    CheckLogFile(eval_.common, {eval_.model, eval_.eval_data, eval_.reference});
    return eval_;
  }
  if (*benchmark_verb_) {
    require(!benchmark_.model.empty(), "-m (the model)");
    CheckLogFile(benchmark_.common, {benchmark_.model, benchmark_.data});
    return benchmark_;
  }
  if (*inspect_verb_) {
    require(!inspect_.model.empty(), "the model");
    CheckLogFile(inspect_.common, {inspect_.model});
    return inspect_;
  }
  if (*passes_verb_) return passes_;
  if (*kernels_verb_) {
    if (!kernels_.shape && (!kernels_.rows.empty() || kernels_.density)) {
      UsageError("--rows and --density need --shape");
    }
    return kernels_;
  }
  UsageError("no command given",
             fmt::format("commands: {}; `sparsefuse --help` says more", fmt::join(Verbs(), ", ")));
}

Command CommandLine::Parse(int argc, const char* const* argv) {
  if (argc > 1 && argv[1][0] != '-') {
    const std::vector<std::string> verbs = Verbs();
    if (std::find(verbs.begin(), verbs.end(), argv[1]) == verbs.end()) {
      const std::string nearest = Nearest(argv[1], verbs);
      UsageError(fmt::format("unknown command \"{}\"", Printable(argv[1])),
                 nearest.empty() ? fmt::format("commands: {}", fmt::join(verbs, ", "))
                                 : fmt::format("did you mean {}?", nearest));
    }
  }
  const auto chosen = [&]() -> CLI::App& {
    const auto verbs = app_.get_subcommands();
    return verbs.empty() ? app_ : *verbs.front();
  };
  try {
    app_.parse(argc, argv);
  } catch (const CLI::CallForHelp&) {
    return HelpOptions{.common = {}, .text = chosen().help()};
  } catch (const CLI::CallForVersion&) {
    return VersionOptions{
        .common = {.format = WantsJson(argc, argv) ? Format::kJson : Format::kHuman}};
  } catch (const CLI::ExtrasError&) {
    UnknownArgument(chosen());
  } catch (const CLI::ParseError& error) {
    UsageError(error.what());
  }
  return Chosen();
}

}  // namespace

Command ParseCommandLine(int argc, const char* const* argv) {
  CommandLine parser;
  return parser.Parse(argc, argv);
}

bool WantsJson(int argc, const char* const* argv) {
  for (int i = 1; i < argc; ++i) {
    const std::string_view word = argv[i];
    if (word == "--format=json") return true;
    if (word == "--format" && i + 1 < argc && std::string_view(argv[i + 1]) == "json") return true;
  }
  return false;
}

}  // namespace sparsefuse

// compress: read → passes → stage → verify → measure → publish.

#include <algorithm>
#include <chrono>
#include <cmath>
#include <numeric>
#include <optional>

#include "cli/commands.h"
#include "cli/compress_config.h"
#include "cli/compress_report.h"
#include "cli/console.h"
#include "cli/cuda_code.h"
#include "cli/operator_library.h"
#include "cli/output_folder.h"
#include "cli/run_inputs.h"
#include "cli/system.h"
#include "onnx_io/reader.h"
#include "passes/cuda/compiler.h"
#include "passes/framework/memory.h"

namespace sparsefuse {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

class Compression {
 public:
  explicit Compression(const CompressOptions& options);

  void Load();  // model and data
  void PrintPlan() const;
  void RunPipeline();
  void Stage();  // written beside its place, not visible there
  void Check();  // as a user would load it
  void Measure();
  void Compile();  // for GPUs
  void Publish();
  void Conclude() const;  // prints; a missed goal is an error from here on

 private:
  Existing OnExisting() const {
    return options_.overwrite ? Existing::kReplace : Existing::kRefuse;
  }
  std::vector<fs::path> Inputs() const;
  std::vector<std::string_view> Results() const;
  SessionOptions OptionsFor(const Model& model, int threads) const;
  void Describe();
  void CompareWithOriginal(const Session& original, const Session& result);
  void JudgeGoals();
  bool IsCompressed() const;
  WantedMetrics Wanted() const { return WantedMetrics(config_.evaluation.metrics); }
  bool Human() const { return options_.common.format == Format::kHuman; }

  const Clock::time_point start_ = Clock::now();
  const CompressOptions& options_;
  Config config_;
  RunInputs in_;
  Model student_;
  std::optional<OutputFolder> folder_;
  std::vector<const CudaTarget*> targets_;
  std::vector<std::string> cuda_files_;
  std::optional<CudaCode> code_;
  Reference reference_;
  const StagedModel* staged_ = nullptr;
  CompressReport report_;
};

Compression::Compression(const CompressOptions& options)
    : options_(options), config_(ConfigOf(options)) {
  targets_ = FindCudaTargets(config_.output.targets);
  if (!targets_.empty()) {
    FindCudaCompiler();  // now rather than after the passes
    cuda_files_ = CudaFileNames(targets_);
  }
  if (!options.output.empty()) CheckOutputFolder(options.output, Results(), OnExisting(), Inputs());
  if (config_.output.emit == Emit::kCustom || !options.operator_library.empty()) {
    in_.context.operator_library = FindOperatorLibrary(options.operator_library);
  }
}

std::vector<fs::path> Compression::Inputs() const {
  return {config_.input_model, config_.calibration_data.path, config_.evaluation.path,
          options_.config};
}

std::vector<std::string_view> Compression::Results() const {
  std::vector<std::string_view> results(std::begin(kCompressResults), std::end(kCompressResults));
  results.insert(results.end(), cuda_files_.begin(), cuda_files_.end());
  return results;
}

void Compression::Load() {
  LoadInputs(config_, options_.common, in_);
  student_ = in_.teacher.Clone();
  Describe();
}

void Compression::Describe() {
  report_.model = config_.input_model.filename().string();
  report_.model_bytes = FileBytes(in_.teacher, config_.input_model.string());
  report_.opset = in_.teacher.opset();
  report_.inventory = TakeInventory(in_.teacher);
  report_.splits = in_.context.splits;
  if (in_.calibration) {
    report_.calibration_samples =
        std::min(in_.calibration->size(), config_.calibration_data.samples);
  }
  if (in_.evaluation) {
    report_.evaluation_samples = in_.evaluation->size();
    report_.evaluation_labelled = in_.evaluation->has_labels();
  }
  if (Human()) Print(IntroductionText(report_));
}

void Compression::PrintPlan() const {
  if (!Human()) {
    nlohmann::ordered_json plan = ToJson(report_, Wanted());
    for (const char* key : {"result", "changed", "kept_fp32", "seconds", "peak_bytes", "goals"}) {
      plan.erase(key);
    }
    plan["dry_run"] = true;
    plan["config"] = ResolvedConfig(config_);
    return PrintJson(plan);
  }
  for (const ConfiguredPass& pass : config_.passes) {
    Print(fmt::format("  {:<15} {}\n", pass.info->name, pass.info->summary));
  }
  Print(Line("result", "dry run: nothing is computed or written"));
}

void Compression::RunPipeline() {
  folder_.emplace(options_.output, Results(), OnExisting(), Inputs());
  reference_ = MakeReference(in_.teacher, in_.context);
  const Detail detail = options_.common.verbosity > 0 ? Detail::kEach : Detail::kGrouped;
  const RunnerOptions runner = {.reference = &reference_,
                                .min_cosine = config_.verification.min_cosine,
                                .dump_after = options_.dump_after,
                                .dump_directory = options_.output / "dumps",
                                .finished = [&](const PassReport& pass) {
                                  report_.peak_bytes =
                                      std::max(report_.peak_bytes, pass.peak_bytes);
                                  if (Human()) Print(PassText(pass, detail));
                                }};
  report_.passes = RunPasses(student_, config_.passes, in_.context, runner);
  config_.decisions = in_.context.decisions;
  report_.changed = IsCompressed();
  report_.custom_operators = UsesOperatorLibrary(student_);
}

// A pipeline that compresses has passes that are not exact; one of them must have done something.
bool Compression::IsCompressed() const {
  bool any_lossy = false, lossy_changed = false, changed = false;
  for (const PassReport& pass : report_.passes) {
    const bool lossy = FindPass(pass.name)->exactness == Exactness::kLossy;
    any_lossy |= lossy;
    changed |= pass.stats.changed;
    lossy_changed |= lossy && pass.stats.changed;
  }
  return any_lossy ? lossy_changed : changed;
}

// Why a model that was not compressed stays as it is: what most layers were skipped for.
std::string WhyKept(const std::vector<PassReport>& passes) {
  std::vector<Finding> skipped;
  for (const PassReport& pass : passes) {
    if (FindPass(pass.name)->exactness == Exactness::kLossless) continue;
    skipped.insert(skipped.end(), pass.stats.findings.begin(), pass.stats.findings.end());
  }
  const std::string reason = CommonReason(skipped);
  return reason.empty() ? "no pass found anything to compress" : reason;
}

// The tool's own entries replaced, others kept.
void SetMetadata(Model& model, const std::vector<std::pair<std::string, std::string>>& own) {
  std::erase_if(model.metadata, [](const auto& e) { return e.first.starts_with("sparsefuse."); });
  model.metadata.insert(model.metadata.end(), own.begin(), own.end());
}

void Compression::Stage() {
  const bool full = reference_.basis == Basis::kData;
  SetMetadata(student_, {{"sparsefuse.version", ToolVersion()},
                         {"sparsefuse.config_sha256", ConfigDigest(config_)},
                         {"sparsefuse.verified", full ? "full" : "structure"}});
  staged_ = &folder_->StageModel(student_, config_.output.external_data);
  report_.output_bytes = staged_->bytes();
}

SessionOptions Compression::OptionsFor(const Model& model, int threads) const {
  return {
      .threads = threads,
      .operator_library = UsesOperatorLibrary(model) ? in_.context.operator_library : fs::path()};
}

void Compression::Check() {
  Exactness exactness = Exactness::kLossless;
  for (const PassReport& pass : report_.passes) {
    if (pass.stats.changed) exactness = std::max(exactness, FindPass(pass.name)->exactness);
  }
  const fs::path& path = staged_->staged_path();
  try {
    const Model reloaded = ReadModel(path);
    Verify(reloaded);
    VerifySignature(in_.teacher, reloaded);
    report_.verification = VerifyAgainst(
        reference_, [&] { return Session(path, OptionsFor(student_, in_.context.threads)); },
        exactness, config_.verification.min_cosine);
    if (report_.custom_operators) {
      SessionOptions options = OptionsFor(student_, in_.context.threads);
      options.gate = "off";  // bodies read nested weights in 8 bits
      const Session with(path, options);
      const Session without(path, {.threads = in_.context.threads, .operator_library = {}});
      report_.bodies = VerifyBodies(reference_, with, without);
    }
  } catch (UserError& error) {
    // The staged file is ours: whatever is wrong with it is a failed verification.
    error.code = ErrorCode::kVerify;
    error.file = (options_.output / kModelName).string();
    throw;
  }
  CheckUnchanged(in_.teacher);
}

void Compression::Measure() {
  if (reference_.basis == Basis::kNothing) {
    report_.no_latency_because = "the engine cannot run the original";
    return;
  }
  const Session original(in_.teacher, OptionsFor(in_.teacher, in_.context.threads));
  const Session result(staged_->staged_path(), OptionsFor(student_, in_.context.threads));
  CompareWithOriginal(original, result);

  const Dataset* data = in_.evaluation ? &*in_.evaluation : in_.context.calibration;
  if (!data || !config_.measure) {
    report_.no_latency_because = data ? "\"measure\" is false" : "no data";
    return;
  }
  const Session original_alone(in_.teacher, OptionsFor(in_.teacher, 1));
  const Session result_alone(staged_->staged_path(), OptionsFor(student_, 1));
  const Session* const sessions[] = {&original_alone, &result_alone};
  report_.latencies = TimeBatches(sessions, *data, {});
}

// On the evaluation data, else on the split of the calibration data that nothing was tuned on.
void Compression::CompareWithOriginal(const Session& original, const Session& result) {
  const Dataset* data = in_.evaluation ? &*in_.evaluation : in_.context.calibration;
  if (!data) return;
  std::vector<int64_t> samples = in_.context.splits.audit;
  if (in_.evaluation) {
    samples.resize(static_cast<size_t>(in_.evaluation->size()));
    std::iota(samples.begin(), samples.end(), 0);
  }
  const EvaluateOptions evaluate = {.progress = [&](int64_t done, int64_t total) {
    in_.context.progress("comparing with the original", done, total);
  }};
  report_.scores = MakeScores(CompareModels(original, result, *data, samples, evaluate),
                              in_.evaluation ? "evaluation data" : "audit split",
                              static_cast<int64_t>(samples.size()), config_.seed);
  if (in_.evaluation) Wanted().Check(*report_.scores);
}

void Compression::JudgeGoals() {
  const Config::Goal& goal = config_.goal;
  if (goal.max_drop) {
    const double drop = report_.scores ? report_.scores->Drop() : std::nan("");
    report_.goals.push_back({"max_drop", *goal.max_drop, drop});
  }
  if (goal.size_ratio) {
    const double ratio =
        static_cast<double>(report_.output_bytes) / static_cast<double>(report_.model_bytes);
    report_.goals.push_back({"size_ratio", *goal.size_ratio, ratio});
  }
  if (goal.latency_ratio) {
    double slowest = report_.latencies.empty() ? std::nan("") : 0;
    for (const BatchLatency& latency : report_.latencies) {
      slowest = std::max(slowest, 1 / latency.Speedup(1));
    }
    report_.goals.push_back({"latency_ratio", *goal.latency_ratio, slowest});
  }
}

void Compression::Compile() {
  if (targets_.empty()) return;
  code_ = CompileCudaCode(student_,
                          {.targets = targets_,
                           .measure = config_.measure,
                           .library = FindCudaLibrary(options_.operator_library)},
                          config_.decisions["cuda"], in_.context.progress);
}

void Compression::Publish() {
  if (!report_.changed) report_.kept_because = WhyKept(report_.passes);
  report_.output = (options_.output / kModelName).string();
  JudgeGoals();
  report_.peak_bytes = std::max(report_.peak_bytes, PeakMemoryBytes());
  report_.seconds = std::chrono::duration<double>(Clock::now() - start_).count();
  if (report_.custom_operators) {
    folder_->StageCopy(kOperatorLibraryName, in_.context.operator_library);
  }
  folder_->Stage(kConfigName, JsonText(ResolvedConfig(config_, options_.output)));
  folder_->Stage(kMetricsName, JsonText(ToJson(report_, Wanted())));
  if (code_ && !code_->layers.empty()) {
    sparsefuse::Stage(*code_, *folder_);
    const fs::path library = in_.context.operator_library.parent_path() / kCudaLibraryName;
    if (fs::exists(library)) folder_->StageCopy(kCudaLibraryName, library);  // built with CUDA
  }
  if (!in_.context.sensitivity.is_null()) {
    folder_->Stage(kSensitivityName, JsonText(in_.context.sensitivity));
  }
  folder_->Publish();
}

void Compression::Conclude() const {
  if (Human()) {
    Print(ResultText(report_, Wanted()));
    if (code_) {
      Print(CudaText(*code_, options_.common.verbosity > 0 ? Detail::kEach : Detail::kGrouped));
    }
  } else {
    nlohmann::ordered_json json = ToJson(report_, Wanted());
    json["output"] = report_.output;
    if (code_) json["cuda"] = ToJson(*code_);
    PrintJson(json);
  }
  for (const GoalResult& goal : report_.goals) {
    if (goal.met()) continue;
    throw UserError(ErrorCode::kGoal,
                    fmt::format("{} is {:.4g}, at most {:.4g} was wanted", goal.name, goal.reached,
                                goal.wanted),
                    "the result is saved")
        .InFile(report_.output);
  }
  if (!report_.changed && !report_.goals.empty()) {
    throw UserError(ErrorCode::kGoal, "kept fp32: " + report_.kept_because, "the result is saved")
        .InFile(report_.output);
  }
}

}  // namespace

void Run(const CompressOptions& options) {
  Compression run(options);
  run.Load();
  if (options.dry_run) return run.PrintPlan();
  run.RunPipeline();
  run.Stage();
  run.Check();
  run.Measure();
  run.Compile();
  run.Publish();
  run.Conclude();
}

}  // namespace sparsefuse

#include "passes/framework/runner.h"

#include <algorithm>
#include <chrono>
#include <fstream>
#include <optional>

#include "onnx_io/text.h"
#include "passes/framework/memory.h"

namespace sparsefuse {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

constexpr uint64_t kLargeTensor = 4096;  // bytes; smaller ones are compared inline

double SecondsSince(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// Bytes that a snapshot must hold by value.
uint64_t InlineBytes(const Model& model) {
  uint64_t large = 0;
  for (const Value* value : model.graph().Initializers()) {
    const uint64_t bytes = value->initializer()->bytes().size();
    if (bytes >= kLargeTensor) large += bytes;
  }
  const uint64_t all = model.WeightBytes();  // counts shared bytes once, `large` each time
  return all > large ? all - large : 0;
}

void Dump(const Model& model, const RunnerOptions& options, size_t number, std::string_view name) {
  if (options.dump_after != "all" && options.dump_after != name) return;
  const fs::path path = options.dump_directory / fmt::format("{:02}-{}.txt", number, name);
  std::error_code ignored;  // shows in the stream's state
  fs::create_directories(options.dump_directory, ignored);
  std::ofstream out(path, std::ios::binary);
  out << ToText(model);
  if (!out.flush())
    throw UserError(ErrorCode::kWrite, "the dump cannot be written").InFile(path.string());
}

void CheckDumpName(const std::vector<ConfiguredPass>& passes, const std::string& name) {
  if (name.empty() || name == "all") return;
  std::vector<std::string> names = {"all"};
  for (const ConfiguredPass& pass : passes) names.emplace_back(pass.info->name);
  if (std::find(names.begin(), names.end(), name) != names.end()) return;
  const std::string nearest = Nearest(name, names);
  throw UserError(ErrorCode::kUsage,
                  fmt::format("no pass of this pipeline is called \"{}\"", Printable(name)),
                  nearest.empty() ? "" : fmt::format("did you mean \"{}\"?", nearest))
      .At("--dump-after");
}

// Runs `step` and puts `label` before the place of any error of ours.
template <typename Step>
void WithLabel(const std::string& label, const Step& step) {
  try {
    step();
  } catch (UserError& error) {
    error.where = error.where.empty() ? label : label + ": " + error.where;
    throw;
  } catch (const InternalError& error) {
    throw InternalError(label + ": " + error.what());
  }
}

void CheckStructure(const Model& teacher, const Model& student) {
  try {
    Verify(student);
    VerifySignature(teacher, student);
  } catch (UserError& error) {
    error.code = ErrorCode::kVerify;
    error.message = "the pass broke the graph: " + error.message;
    error.hint = "this is a bug of sparsefuse; leave the pass out";
    throw;
  }
}

class PassRun {
 public:
  PassRun(Model& student, Context& context, const Reference& reference,
          const RunnerOptions& options)
      : student_(student), context_(context), reference_(reference), options_(options) {}

  PassReport operator()(const ConfiguredPass& pass, size_t number) {
    PassReport report{.name = std::string(pass.info->name)};
    report.weight_bytes_before = student_.WeightBytes();
    std::optional<ModelSnapshot> before;
    if (InlineBytes(student_) <= kMostInlineBytesCompared) before.emplace(student_);

    ResetPeakMemory();
    const auto start = Clock::now();
    const std::unique_ptr<Pass> instance = pass.info->make(pass.params);
    instance->Check(student_, context_);
    report.stats = instance->Run(student_, context_);
    report.seconds = SecondsSince(start);
    report.peak_bytes = PeakMemoryBytes();
    Dump(student_, options_, number, pass.info->name);

    const auto verify_start = Clock::now();
    if (report.stats.changed) {
      if (pass.info->exactness == Exactness::kLossy) exactness_ = Exactness::kLossy;
      CheckStructure(*context_.teacher, student_);
      last_ = VerifyAgainst(
          reference_, [&] { return OpenStudent(); }, exactness_, options_.min_cosine);
    } else if (before) {
      SF_CHECK(*before == ModelSnapshot(student_),
               "the pass says that it changed nothing, and the model is another");
    }
    report.verification = last_;
    report.verify_seconds = SecondsSince(verify_start);
    report.weight_bytes_after = student_.WeightBytes();
    return report;
  }

 private:
  Session OpenStudent() const {
    return Session(student_,
                   {.threads = context_.threads, .operator_library = context_.operator_library});
  }

  Model& student_;
  Context& context_;
  const Reference& reference_;
  const RunnerOptions& options_;
  Exactness exactness_ = Exactness::kLossless;
  Verification last_{.basis = reference_.basis, .reason = reference_.reason};
};

}  // namespace

std::vector<PassReport> RunPasses(Model& student, const std::vector<ConfiguredPass>& passes,
                                  Context& context, const RunnerOptions& options) {
  SF_CHECK(context.teacher != nullptr, "the context has no teacher");
  CheckDumpName(passes, options.dump_after);
  if (options.dump_after == "all") Dump(student, options, 0, "input");
  Reference own;
  if (!options.reference) own = MakeReference(*context.teacher, context);
  std::vector<PassReport> reports;
  PassRun run(student, context, options.reference ? *options.reference : own, options);
  for (size_t i = 0; i < passes.size(); ++i) {
    const std::string_view name = passes[i].info->name;
    WithLabel(fmt::format("pass {}/{} {}", i + 1, passes.size(), name),
              [&] { reports.push_back(run(passes[i], i + 1)); });
    if (options.finished) options.finished(reports.back());
  }
  return reports;
}

ModelSnapshot::ModelSnapshot(const Model& model)
    : bytes_(SerializeModelWithoutWeights(model, kLargeTensor, large_)) {}

bool ModelSnapshot::operator==(const ModelSnapshot& other) const {
  const auto same = [](const LeftOutTensor& a, const LeftOutTensor& b) {
    const auto x = a.tensor.bytes(), y = b.tensor.bytes();
    return a.name == b.name && a.tensor.dtype() == b.tensor.dtype() &&
           a.tensor.dims() == b.tensor.dims() &&
           (a.tensor.SharesBytesWith(b.tensor) ||
            std::equal(x.begin(), x.end(), y.begin(), y.end()));
  };
  return bytes_ == other.bytes_ &&
         std::equal(large_.begin(), large_.end(), other.large_.begin(), other.large_.end(), same);
}

}  // namespace sparsefuse

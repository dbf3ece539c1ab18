#include "tests/golden/golden.h"

#include <optional>
#include <regex>
#include <sstream>

#include "onnx_io/text.h"
#include "passes/data/random.h"
#include "passes/framework/probes.h"
#include "passes/framework/runner.h"
#include "passes/framework/strict_json.h"
#include "tests/support/support.h"

namespace sparsefuse::test {
namespace {

constexpr std::string_view kDefaultHeader = "<ir_version: 10, opset_import: [\"\" : 21]>\n";

const ParamSpec& ContextSpec() {
  static const ParamSpec spec = {
      {.name = "emit",
       .otherwise = std::string("custom"),
       .summary = "",
       .choices = {"custom", "standard"}},
      {.name = "samples", .otherwise = int64_t{0}, .summary = "", .min = 0, .max = 1000},
      {.name = "nodes_to_exclude", .otherwise = std::vector<std::string>{}, .summary = ""},
      {.name = "op_types_to_exclude", .otherwise = std::vector<std::string>{}, .summary = ""}};
  return spec;
}

// The rest of a line after `directive`, or nothing.
std::optional<std::string> After(std::string_view line, std::string_view directive) {
  if (line.substr(0, directive.size()) != directive) return std::nullopt;
  std::string rest(line.substr(directive.size()));
  rest.erase(0, rest.find_first_not_of(' '));
  return rest;
}

std::string Trimmed(std::string text) {
  text.erase(text.find_last_not_of(" \n") + 1);
  return text;
}

std::string NpyType(DType dtype) {
  switch (dtype) {
    case DType::kFloat:
      return "<f4";
    case DType::kDouble:
      return "<f8";
    case DType::kFloat16:
      return "<f2";
    case DType::kInt64:
      return "<i8";
    case DType::kInt32:
      return "<i4";
    case DType::kUint8:
      return "|u1";
    case DType::kInt8:
      return "|i1";
    case DType::kBool:
      return "|b1";
    default:
      throw UserError(ErrorCode::kUnsupported, "samples of this type");
  }
}

void WriteNpy(const std::filesystem::path& path, const Tensor& tensor) {
  std::string shape;
  for (int64_t dim : tensor.dims()) shape += std::to_string(dim) + ",";
  std::string header = fmt::format("{{'descr': '{}', 'fortran_order': False, 'shape': ({}), }}",
                                   NpyType(tensor.dtype()), shape);
  header.resize((header.size() + 10 + 64) / 64 * 64 - 10, ' ');  // the data starts aligned
  header.back() = '\n';
  std::string bytes = "\x93NUMPY\x01";
  bytes += '\0';
  bytes += static_cast<char>(header.size() & 0xff);
  bytes += static_cast<char>(header.size() >> 8);
  bytes += header;
  bytes.append(reinterpret_cast<const char*>(tensor.bytes().data()), tensor.bytes().size());
  WriteFile(path, bytes);
}

// `samples` seeded samples for each input: it is the test's own model that they calibrate.
Dataset MakeSamples(const Model& model, int64_t samples) {
  const TempDir directory;
  std::vector<Port> ports;
  for (const Value* input : model.graph().inputs()) {
    SF_CHECK(input->type() && !input->type()->dims.empty(), "input \"{}\" has no first axis",
             input->name());
    ports.push_back({input->name(), *input->type()});
    ports.back().type.dims[0] = samples;
  }
  for (const auto& [name, tensor] : MakeProbe(ports, 0))
    WriteNpy(directory / (name + ".npy"), tensor);
  return Dataset::Load(directory.path(), model);
}

std::string RenderFindings(const PassStats& stats) {
  std::string text;
  for (const Finding& finding : stats.findings) {
    text += finding.action.empty() ? fmt::format("# FINDING skipped: \"{}\" ({})\n",
                                                 Printable(finding.subject), finding.reason)
                                   : fmt::format("# FINDING done: \"{}\" ({})\n",
                                                 Printable(finding.subject), finding.action);
  }
  return text;
}

class Trial {
 public:
  Trial(const Golden& golden, const PassInfo& pass, const Model& teacher, const Dataset* data)
      : golden_(golden), pass_(pass), teacher_(teacher), data_(data) {}

  Context MakeContext(int threads) const {
    Context context;
    context.teacher = &teacher_;
    context.calibration = data_;
    if (data_) context.splits = MakeSplits(data_->size(), 0);
    context.threads = threads;
    context.emit = golden_.context.String("emit") == "standard" ? Emit::kStandard : Emit::kCustom;
    context.measure = false;
    context.operator_library = SPARSEFUSE_OPS_LIBRARY;
    context.exclude_nodes = golden_.context.Strings("nodes_to_exclude");
    context.exclude_op_types = golden_.context.Strings("op_types_to_exclude");
    return context;
  }

  PassStats Run(Model& student, int threads) const {
    Context context = MakeContext(threads);
    const auto instance = pass_.make(Params::Parse(pass_.params, golden_.params, "# RUN"));
    instance->Check(student, context);
    return instance->Run(student, context);
  }

  // What holds for every pass and model.
  std::vector<std::string> Problems(const Model& student, const PassStats& stats) const {
    std::vector<std::string> problems;
    const ModelSnapshot before(teacher_), after(student);
    if ((before == after) == stats.changed) {
      problems.push_back(stats.changed
                             ? "it says that it changed the model, which is the same"
                             : "it says that it changed nothing, and the model is another");
    }
    try {
      Verify(student);
      VerifySignature(teacher_, student);
    } catch (const UserError& error) {
      problems.push_back("it broke the graph: " + error.Line());
      return problems;
    }
    Model two_threads = teacher_.Clone();
    Run(two_threads, 2);
    if (!(ModelSnapshot(two_threads) == after)) {
      problems.push_back("1 and 2 threads give different bytes");
    }
    if (golden_.idempotent) {
      Model twice = student.Clone();
      Run(twice, 1);
      if (!(ModelSnapshot(twice) == after)) problems.push_back("a second run changes more");
    }
    CheckAnswers(student, problems);
    return problems;
  }

 private:
  void CheckAnswers(const Model& student, std::vector<std::string>& problems) const {
    const Reference reference = MakeReference(teacher_, MakeContext(1));
    const bool ran = reference.basis == Basis::kProbes || reference.basis == Basis::kData;
    if (ran != golden_.runs) {
      problems.push_back(ran ? "the engine runs the model: leave out # NO ENGINE"
                             : "the engine does not run the model: " + reference.reason);
    }
    try {
      VerifyAgainst(
          reference, [&] { return Session(student, {.operator_library = SPARSEFUSE_OPS_LIBRARY}); },
          pass_.exactness);
    } catch (const UserError& error) {
      problems.push_back("its answers are others: " + error.Line());
    }
  }

  const Golden& golden_;
  const PassInfo& pass_;
  const Model& teacher_;
  const Dataset* data_;
};

}  // namespace

Golden ParseGolden(std::string_view text) {
  Golden golden;
  golden.context = Params::Defaults(ContextSpec());
  std::istringstream lines{std::string(text)};
  bool expecting = false;
  for (std::string line; std::getline(lines, line);) {
    expecting = expecting || After(line, "# EXPECT");
    (expecting ? golden.expectation : golden.given) += line + "\n";
    if (expecting) continue;
    if (const auto run = After(line, "# RUN ")) {
      const size_t end = std::min(run->find(' '), run->size());
      golden.pass = run->substr(0, end);
      if (end < run->size()) golden.params = ParseStrictJson(run->substr(end));
    } else if (const auto context = After(line, "# CONTEXT ")) {
      golden.context = Params::Parse(ContextSpec(), ParseStrictJson(*context), "# CONTEXT");
    } else if (After(line, "# ONCE ")) {
      golden.idempotent = false;
    } else if (After(line, "# NO ENGINE ")) {
      golden.runs = false;
    }
  }
  if (golden.pass.empty()) throw UserError(ErrorCode::kConfig, "there is no line \"# RUN pass\"");
  if (!expecting) throw UserError(ErrorCode::kConfig, "there is no line \"# EXPECT\"");
  return golden;
}

std::string FillTensors(const std::string& text) {
  static const std::regex pattern(
      R"((float|double)\[([0-9, ]+)\]\s*([A-Za-z0-9_./]+)\s*=\s*\{(\+?)(…|\.\.\.)\})");
  std::string filled;
  auto rest = text.cbegin();
  for (std::sregex_iterator match(text.begin(), text.end(), pattern), end; match != end; ++match) {
    filled.append(rest, (*match)[0].first);
    rest = (*match)[0].second;
    int64_t count = 1;
    std::istringstream dims((*match)[2]);
    for (std::string dim; std::getline(dims, dim, ',');) count *= std::stoll(dim);
    uint64_t stream = 0;
    for (char c : (*match)[3].str()) stream = RandomAt(stream, static_cast<unsigned char>(c));
    const bool positive = (*match)[4].length() > 0;
    std::string values;
    for (int64_t i = 0; i < count; ++i) {
      const double unit = static_cast<double>(RandomAt(stream, uint64_t(i)) >> 40) * 0x1p-24;
      values += fmt::format("{}{:.6f}", i == 0 ? "" : ", ", positive ? unit + 0.1 : 2 * unit - 1);
    }
    filled += fmt::format("{}[{}] {} = {{{}}}", (*match)[1].str(), (*match)[2].str(),
                          (*match)[3].str(), values);
  }
  filled.append(rest, text.cend());
  return filled;
}

GoldenResult RunGolden(const Golden& golden, const PassInfo& pass) {
  std::string model_text;
  std::istringstream lines(golden.given);
  for (std::string line; std::getline(lines, line);) {
    if (line.substr(0, 1) != "#") model_text += line + "\n";
  }
  const size_t start = model_text.find_first_not_of(" \n");
  if (start != std::string::npos && model_text[start] != '<') {
    model_text.insert(0, kDefaultHeader);
  }
  const Model teacher = ModelFromText(FillTensors(model_text));
  std::optional<Dataset> data;
  if (golden.context.Int("samples") > 0) {
    data = MakeSamples(teacher, golden.context.Int("samples"));
  }
  const Trial trial(golden, pass, teacher, data ? &*data : nullptr);
  Model student = teacher.Clone();
  PassStats stats;
  try {
    stats = trial.Run(student, 1);
  } catch (const UserError& error) {
    return {fmt::format("# EXPECT error {}: {}\n", ErrorName(error.code), error.Line()), {}};
  }
  std::string outcome = stats.changed ? "# EXPECT\n" : "# EXPECT unchanged\n";
  outcome += RenderFindings(stats);
  if (stats.changed) outcome += Trimmed(ToText(student)) + "\n";
  return {outcome, trial.Problems(student, stats)};
}

bool Matches(const std::string& expectation, const std::string& outcome) {
  if (const auto expected = After(Trimmed(expectation), "# EXPECT error ")) {
    const auto got = After(outcome, "# EXPECT error ");
    const size_t colon = std::min(expected->find(':'), expected->size());
    if (!got || got->substr(0, colon) != expected->substr(0, colon)) return false;
    const auto text = After(expected->substr(colon), ":");
    return !text || got->find(*text, colon) != std::string::npos;
  }
  static const std::regex inline_finding(R"(; (skipped|done): )");
  const size_t end = std::min(expectation.find('\n'), expectation.size());
  const std::string first =
      std::regex_replace(expectation.substr(0, end), inline_finding, "\n# FINDING $1: ");
  return Trimmed(first + expectation.substr(end)) == Trimmed(outcome);
}

}  // namespace sparsefuse::test

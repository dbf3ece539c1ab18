#include "passes/framework/verify.h"

#include <algorithm>
#include <cmath>
#include <optional>

#include "passes/data/metrics.h"
#include "passes/data/random.h"
#include "passes/framework/probes.h"

namespace sparsefuse {
namespace {

constexpr uint64_t kMostAnswerBytes = uint64_t{256} << 20;
constexpr int64_t kBatch = 4;  // samples run together where the model allows
// "Largest element" of outputs that are zero throughout.
constexpr double kSmallest = 1e-6;
// Share of integers that rounding before an arg-max may move.
constexpr double kIntegerFlips = 1e-3;
// Two ways to compute one model may differ by that times its noise.
constexpr double kNoiseFactor = 10;

[[noreturn]] void Fail(const std::string& where, std::string what, std::string hint = {}) {
  throw UserError(ErrorCode::kVerify, std::move(what), std::move(hint)).At(where);
}

std::string NameOf(const Port& port) { return fmt::format("output \"{}\"", Printable(port.name)); }

std::vector<std::string> Names(const std::vector<Port>& ports) {
  std::vector<std::string> names;
  for (const Port& port : ports) names.push_back(port.name);
  return names;
}

// Metrics count samples along the first axis.
Tensor AtLeastOneAxis(const Tensor& tensor) {
  return tensor.rank() == 0 ? tensor.Reshaped({1}) : tensor;
}

struct Measured {
  Distances distances;
  bool rank_differs = false;
};

void Add(const Tensor& reference, const Tensor& candidate, Measured& measured) {
  measured.rank_differs |= reference.rank() != candidate.rank();
  if (reference.size() == 0 && candidate.size() == 0) return;
  const Tensor expected = AtLeastOneAxis(reference);
  measured.distances.Add(expected, AtLeastOneAxis(candidate), DetectOutputKind(expected));
}

std::vector<Measured> Compare(const Reference& reference,
                              const std::vector<std::vector<Tensor>>& answers,
                              const Session& candidate) {
  const std::vector<std::string> names = Names(reference.outputs);
  std::vector<Measured> measured(names.size());
  for (size_t batch = 0; batch < reference.feeds.size(); ++batch) {
    const std::vector<Tensor> outputs = candidate.Run(reference.feeds[batch], names);
    for (size_t i = 0; i < names.size(); ++i) Add(answers[batch][i], outputs[i], measured[i]);
  }
  return measured;
}

double RelativeError(const Distances& d) {
  return d.max_abs_error / std::max(d.max_abs_reference, kSmallest);
}

// Of integers the share that differs, of floats as above.
double ErrorOf(const Port& port, const Distances& d) {
  if (IsFloating(port.type.dtype)) return RelativeError(d);
  return d.answers > 0 ? static_cast<double>(d.flips) / static_cast<double>(d.answers) : 0;
}

// Above it an output says nothing.
double MostNoise(const Reference& reference) { return std::max(0.01, 10 * reference.tolerance); }

// Models whose rounding is coarse: floats of 16 bits, or quantisation inside.
bool IsCoarse(const Model& model) {
  bool coarse = false;
  const auto is_half = [](DType type) {
    return type == DType::kFloat16 || type == DType::kBfloat16;
  };
  ForEachGraph(model, [&](const Graph& graph) {
    for (const Value* value : graph.Initializers()) {
      coarse = coarse || is_half(value->initializer()->dtype());
    }
    for (const Value* value : graph.inputs()) {
      coarse = coarse || (value->type() && is_half(value->type()->dtype));
    }
    for (const Node* node : graph.Nodes()) {
      const std::string& op = node->op();
      coarse = coarse || op.find("Quantize") != std::string::npos ||
               op.find("QLinear") != std::string::npos || op.ends_with("Integer") ||
               (node->Is("Cast") && is_half(static_cast<DType>(node->GetInt("to", 0)))) ||
               (node->Is("Constant") && node->output(0) && node->output(0)->constant() &&
                is_half(node->output(0)->constant()->dtype()));
    }
  });
  return coarse;
}

SessionOptions OptionsOf(const Context& context) {
  return {.threads = context.threads, .operator_library = context.operator_library};
}

uint64_t ByteSum(const std::vector<Tensor>& tensors) {
  uint64_t sum = 0;
  for (const Tensor& tensor : tensors) sum += tensor.bytes().size();
  return sum;
}

void TakeDataAnswers(const Session& session, const Context& context, int64_t samples,
                     Reference& reference) {
  const Dataset& data = *context.calibration;
  std::vector<int64_t> pool = context.splits.fit;
  if (pool.empty()) pool = {0};
  const int64_t size = static_cast<int64_t>(pool.size());
  const int64_t batch = data.fixed_batch() > 0 ? data.fixed_batch() : std::min(kBatch, size);
  uint64_t bytes = 0;
  for (int64_t start = 0; start < std::min(samples, size) && bytes < kMostAnswerBytes;
       start += batch) {
    std::vector<int64_t> chosen;  // wraps around: a fixed batch must be full
    for (int64_t i = start; i < start + batch; ++i) chosen.push_back(pool[size_t(i % size)]);
    reference.feeds.push_back(data.Gather(chosen));
    try {
      reference.answers.push_back(session.Run(reference.feeds.back(), Names(reference.outputs)));
    } catch (UserError& error) {
      error.At(fmt::format("the original on calibration sample {}", chosen.front()));
      throw;
    }
    bytes += ByteSum(reference.answers.back());
  }
  reference.basis = Basis::kData;
}

// Open dims have no known length: the first guess that the model accepts is taken.
void TakeProbeAnswers(const Session& session, uint64_t seed, Reference& reference) {
  constexpr ProbeLengths kGuesses[] = {{2, 8}, {1, 8}, {1, 64}, {1, 224}, {2, 1}, {1, 1}};
  std::string last;
  for (const ProbeLengths& lengths : kGuesses) {
    reference.feeds.clear();
    reference.answers.clear();
    try {
      for (uint64_t i = 0; i < 2; ++i) {
        reference.feeds.push_back(MakeProbe(session.inputs(), seed + i, lengths));
        reference.answers.push_back(session.Run(reference.feeds.back(), Names(reference.outputs)));
      }
      reference.basis = Basis::kProbes;
      reference.reason = "no calibration data";
      return;
    } catch (const UserError& error) {
      last = error.Line();
      if (error.code == ErrorCode::kUnsupported) break;
    }
  }
  reference.feeds.clear();
  reference.answers.clear();
  reference.basis = Basis::kRunning;
  reference.reason = "no calibration data, and no made-up input that the model accepts: " + last;
}

std::vector<Measured> CompareFirstBatch(const Reference& reference, const Feeds& feeds,
                                        const Session& session) {
  Reference first = reference;
  first.feeds = {feeds};
  return Compare(first, first.answers, session);
}

bool Repeats(const Session& session, const Reference& reference) {
  for (const Measured& m : CompareFirstBatch(reference, reference.feeds.front(), session)) {
    const Distances& d = m.distances;
    if (d.mismatched > 0 || RelativeError(d) > reference.tolerance) return false;
  }
  return true;
}

// Every float moved up or down by 2⁻²⁰ of itself, a few roundings' worth.
Feeds Shaken(const Feeds& feeds) {
  Feeds shaken = feeds;
  for (auto& [name, tensor] : shaken) {
    if (tensor.dtype() != DType::kFloat) continue;
    std::vector<float> values = tensor.ToFloats();
    for (size_t i = 0; i < values.size(); ++i) {
      values[i] *= RandomAt(0, i) >> 63 ? 1 + 0x1p-20f : 1 - 0x1p-20f;
    }
    tensor = Tensor::Of<float>(tensor.dims(), values);
  }
  return shaken;
}

// Some outputs are rounding noise (a detector that sees nothing answers 1e-7 throughout): no pass
// can be held to 1e-4 of it. Found by shaking the inputs; models without float inputs are not
// shaken.
std::vector<double> MeasureNoise(const Session& session, const Reference& reference) {
  std::vector<double> noise;
  const Feeds shaken = Shaken(reference.feeds.front());
  const std::vector<Measured> measured = CompareFirstBatch(reference, shaken, session);
  for (size_t i = 0; i < measured.size(); ++i) {
    noise.push_back(ErrorOf(reference.outputs[i], measured[i].distances));
  }
  return noise;
}

struct Judge {
  const Reference& reference;
  Exactness exactness;
  double min_cosine;

  void Check(size_t output, const Measured& measured, Verification& result) const {
    const Port& port = reference.outputs[output];
    const Distances& d = measured.distances;
    const std::string where = NameOf(port);
    if (d.non_finite > 0) {
      Fail(where, fmt::format("{} elements are not finite where the original's are", d.non_finite));
    }
    if (reference.basis == Basis::kRunning) return;
    if (d.mismatched > 0) {
      // A lossy pass may change how many objects are found; then the answers cannot be compared.
      const auto& dims = port.type.dims;
      const bool open =
          std::any_of(dims.begin(), dims.end(), [](const auto& dim) { return dim.index() == 1; });
      if (exactness == Exactness::kLossy && open && !measured.rank_differs) return;
      Fail(where, "its shape or type differs from the original's");
    }
    if (d.constant && !d.reference_constant) {
      Fail(where, "every element is the same; the original's are not");
    }
    const double noise = output < reference.noise.size() ? reference.noise[output] : 0;
    if (noise > MostNoise(reference)) return;
    const double cosine = d.Cosine();  // NaN: nothing floating to compare
    result.max_error = std::max(result.max_error, RelativeError(d));
    if (!std::isnan(cosine)) result.cosine = std::min(result.cosine, cosine);
    if (exactness == Exactness::kLossless) {
      CheckLossless(port, d, kNoiseFactor * noise);
    } else if (reference.basis == Basis::kData && cosine < min_cosine) {
      Fail(where,
           fmt::format("mean cosine with the original's is {:.4f}, at least {} is wanted", cosine,
                       min_cosine),
           "exclude layers, or lower verification.min_cosine");
    }
  }

  void CheckLossless(const Port& port, const Distances& d, double noise) const {
    const double error = ErrorOf(port, d);
    if (IsFloating(port.type.dtype)) {
      const double allowed = std::max(reference.tolerance, noise);
      if (error <= allowed) return;
      Fail(NameOf(port),
           fmt::format("differs from the original's by {:.2g} of its largest element, {:.2g} is "
                       "allowed",
                       error, allowed));
    } else if (error > std::max(kIntegerFlips, noise)) {
      Fail(NameOf(port),
           fmt::format("{} of {} elements differ from the original's", d.flips, d.answers));
    }
  }
};

void CheckOutputs(const Reference& reference, const Session& candidate) {
  for (const Port& wanted : reference.outputs) {
    const auto& ports = candidate.outputs();
    const auto found = std::find_if(ports.begin(), ports.end(),
                                    [&](const Port& port) { return port.name == wanted.name; });
    if (found == ports.end()) Fail(NameOf(wanted), "is missing");
    if (found->type.dtype != wanted.type.dtype) {
      Fail(NameOf(wanted), fmt::format("has type {}, the original's has {}",
                                       DTypeName(found->type.dtype), DTypeName(wanted.type.dtype)));
    }
  }
}

}  // namespace

Reference MakeReference(const Model& teacher, const Context& context, int64_t samples) {
  Reference reference;
  if (IsCoarse(teacher)) reference.tolerance = 1e-2;
  std::optional<Session> session;
  try {
    session.emplace(teacher, OptionsOf(context));
  } catch (const UserError& error) {
    if (error.code != ErrorCode::kEngine && error.code != ErrorCode::kUnsupported) throw;
    reference.reason = "the engine cannot load the original: " + error.Line();
    return reference;
  }
  for (const Port& port : session->outputs()) {
    if (port.type.dtype != DType::kUndefined) reference.outputs.push_back(port);
  }
  if (reference.outputs.empty()) {
    reference.basis = Basis::kRunning;
    reference.reason = "no output is a tensor";
    return reference;
  }
  if (context.calibration) {
    TakeDataAnswers(*session, context, samples, reference);
  } else {
    TakeProbeAnswers(*session, context.seed, reference);
  }
  if (reference.feeds.empty()) return reference;
  if (!Repeats(*session, reference)) {
    reference.basis = Basis::kRunning;
    reference.reason = "the original draws random numbers: two runs differ";
  }
  reference.noise = MeasureNoise(*session, reference);
  const auto& noise = reference.noise;
  const bool any_use =
      std::any_of(noise.begin(), noise.end(), [&](double x) { return x <= MostNoise(reference); });
  if (reference.basis != Basis::kRunning && !any_use) {
    reference.basis = Basis::kRunning;
    reference.reason = "the original's answers are rounding noise";
  }
  return reference;
}

Verification VerifyAgainst(const Reference& reference, const std::function<Session()>& candidate,
                           Exactness exactness, double min_cosine) {
  Verification result = {.basis = reference.basis, .reason = reference.reason};
  if (reference.basis == Basis::kNothing) return result;
  std::vector<Measured> measured;
  try {
    const Session session = candidate();
    CheckOutputs(reference, session);
    measured = Compare(reference, reference.answers, session);
  } catch (UserError& error) {
    if (error.code != ErrorCode::kEngine) throw;
    Fail(error.where, "the model no longer loads or runs: " + error.message);
  }
  const Judge judge = {reference, exactness, min_cosine};
  for (size_t i = 0; i < measured.size(); ++i) {
    judge.Check(i, measured[i], result);
  }
  return result;
}

Verification VerifyBodies(const Reference& reference, const Session& with_library,
                          const Session& without_library) {
  Verification result = {.basis = reference.basis, .reason = reference.reason};
  if (reference.basis == Basis::kNothing || reference.basis == Basis::kRunning) return result;
  std::vector<std::vector<Tensor>> answers;
  for (const Feeds& feeds : reference.feeds) {
    answers.push_back(with_library.Run(feeds, Names(reference.outputs)));
  }
  const std::vector<Measured> measured = Compare(reference, answers, without_library);
  for (size_t i = 0; i < measured.size(); ++i) {
    const Distances& d = measured[i].distances;
    const std::string where = NameOf(reference.outputs[i]);
    if (d.non_finite > 0 || (d.constant && !d.reference_constant)) {
      Fail(where, "without the operator library it is constant or not finite");
    }
    if (reference.noise[i] > MostNoise(reference)) continue;
    result.max_error = std::max(result.max_error, RelativeError(d));
    const double cosine = d.Cosine();
    if (std::isnan(cosine)) continue;
    result.cosine = std::min(result.cosine, cosine);
    if (cosine < kMinBodyCosine) {
      Fail(where,
           fmt::format("with and without the operator library the mean cosine is {:.5f}, at least "
                       "{} is wanted",
                       cosine, kMinBodyCosine),
           "with \"portable\": false the function bodies need a CPU with VNNI");
    }
  }
  return result;
}

void VerifySignature(const Model& teacher, const Model& student) {
  const auto compare = [](const char* kind, const std::vector<Value*>& before,
                          const std::vector<Value*>& after) {
    for (size_t i = 0; i < std::max(before.size(), after.size()); ++i) {
      if (i >= after.size() || i >= before.size() || before[i]->name() != after[i]->name()) {
        const std::string was = i < before.size() ? Printable(before[i]->name()) : "nothing";
        const std::string is = i < after.size() ? Printable(after[i]->name()) : "nothing";
        Fail(fmt::format("{} {}", kind, i), fmt::format("was \"{}\", is \"{}\"", was, is));
      }
      const auto &was = before[i]->type(), &is = after[i]->type();
      if (was && is && was->dtype != is->dtype) {
        Fail(fmt::format("{} \"{}\"", kind, Printable(before[i]->name())),
             fmt::format("had type {}, has {}", DTypeName(was->dtype), DTypeName(is->dtype)));
      }
    }
  };
  // Before IR 4 every initializer had to be listed as an input; no caller sets those.
  const auto inputs = [&](const Model& model) {
    std::vector<Value*> values = model.graph().inputs();
    if (teacher.ir_version < 4) {
      std::erase_if(values, [](const Value* value) { return value->is_initializer(); });
    }
    return values;
  };
  compare("input", inputs(teacher), inputs(student));
  compare("output", teacher.graph().outputs(), student.graph().outputs());
}

}  // namespace sparsefuse

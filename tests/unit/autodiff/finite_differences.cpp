#include "tests/unit/autodiff/finite_differences.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "onnx_io/text.h"
#include "passes/data/random.h"
#include "passes/engine/engine.h"
#include "tests/support/catch.h"

namespace sparsefuse::test {
namespace {

std::vector<double> Doubles(const Tensor& tensor) {
  if (tensor.dtype() == DType::kDouble) {
    return {tensor.data<double>().begin(), tensor.data<double>().end()};
  }
  const std::vector<float> floats = tensor.ToFloats();
  return {floats.begin(), floats.end()};
}

Tensor FromDoubles(DType type, const Dims& dims, const std::vector<double>& values) {
  if (type == DType::kDouble) return Tensor::Of<double>(dims, values);
  return Tensor::Of<float>(dims, std::vector<float>(values.begin(), values.end()));
}

double Dot(const std::vector<double>& a, const std::vector<double>& b) {
  REQUIRE(a.size() == b.size());
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

double Norm(const std::vector<double>& a) { return std::sqrt(Dot(a, a)); }

struct MovableModel {
  Model model;
  std::string shift;  // input: what is added to the tensor
  std::string moved;  // the sum, which takes the tensor's place
};

MovableModel Movable(const Model& model, const std::string& tensor, DType type) {
  Model copy = model.Clone();
  Graph& graph = copy.graph();
  Value* value = graph.FindValue(tensor);
  Value* shift = graph.AddGraphInput(graph.FreshName("shift"), ValueType{type, false, {}});
  Node* sum =
      graph.AddNode({.op = "Add", .inputs = {value, shift}, .outputs = {graph.FreshName("moved")}});
  graph.ReplaceUses(value, sum->output(0));
  graph.SetInput(sum, 0, value);
  return {std::move(copy), shift->name(), sum->output(0)->name()};
}

struct Projection {
  std::vector<std::string> outputs;
  std::vector<std::vector<double>> weights;  // one an output
  double size = 0;                           // of the weighted answers, as a norm

  double Of(const std::vector<Tensor>& answers) const {
    double sum = 0;
    for (size_t i = 0; i < answers.size(); ++i) sum += Dot(Doubles(answers[i]), weights[i]);
    return sum;
  }
};

// Random; see Judgement::whole_model.
std::vector<double> Direction(const Session& session, const MovableModel& movable, Feeds feeds,
                              const Tensor& gradient, uint64_t seed, bool whole_model) {
  std::vector<double> direction = Doubles(Random(DType::kDouble, gradient.dims(), seed, -1, 1));
  if (!whole_model) return direction;
  feeds.emplace_back(movable.shift, Random(gradient.dtype(), gradient.dims(), 0, 0, 0));
  const std::vector<double> value =
      Doubles(session.Run(feeds, std::vector<std::string>{movable.moved})[0]);
  const std::vector<double> g = Doubles(gradient);
  const double size = Norm(value) / std::sqrt(static_cast<double>(g.size()));
  for (size_t i = 0; i < g.size(); ++i) {
    direction[i] = size * (direction[i] + static_cast<double>((g[i] > 0) - (g[i] < 0)));
  }
  return direction;
}

// Central difference of the projection.
double Slope(const Session& session, const std::string& shift, const Feeds& feeds,
             const Projection& projection, const Tensor& gradient,
             const std::vector<double>& direction, double step) {
  double sides[2];
  for (const int side : {0, 1}) {
    std::vector<double> moved = direction;
    for (double& element : moved) element *= side ? step : -step;
    Feeds shifted = feeds;
    shifted.emplace_back(shift, FromDoubles(gradient.dtype(), gradient.dims(), moved));
    sides[side] = projection.Of(session.Run(shifted, projection.outputs));
  }
  return (sides[1] - sides[0]) / (2 * step);
}

void CheckGradient(const Model& model, const Feeds& feeds, const std::string& tensor,
                   const Projection& projection, const Tensor& gradient, uint64_t seed,
                   const Judgement& judgement) {
  const MovableModel movable = Movable(model, tensor, gradient.dtype());
  std::vector<std::string> asked = projection.outputs;
  asked.push_back(movable.moved);
  // Not optimised: ONNX Runtime fuses normalisations as if their moved epsilon were 1e-5.
  const Session session(WithOutputs(movable.model, asked), {.optimize = false});
  const std::vector<double> direction =
      Direction(session, movable, feeds, gradient, seed, judgement.whole_model);
  const std::vector<double> g = Doubles(gradient);
  const double claimed = Dot(g, direction);
  const double scale = Norm(g) * Norm(direction) / std::sqrt(static_cast<double>(g.size()));
  std::vector<double> steps = {judgement.step};
  if (judgement.whole_model) {
    const double unit = judgement.step * projection.size / std::fabs(claimed);
    steps = {unit, unit / 3, unit / 10, unit / 30, unit / 100};
  }
  double error = std::numeric_limits<double>::infinity();
  for (const double step : steps) {
    const double measured =
        Slope(session, movable.shift, feeds, projection, gradient, direction, step);
    error = std::min(error, std::fabs(measured - claimed));
  }
  CAPTURE(claimed, scale);
  CHECK(error <= judgement.tolerance * std::max(scale, std::fabs(claimed)));
}

}  // namespace

Tensor Random(DType type, const Dims& dims, uint64_t seed, double low, double high) {
  std::vector<double> values(static_cast<size_t>(*ElementCount(dims)));
  for (size_t i = 0; i < values.size(); ++i) {
    const double unit = static_cast<double>(RandomAt(seed, i) >> 11) * 0x1p-53;
    values[i] = low + (high - low) * unit;
  }
  return FromDoubles(type, dims, values);
}

void CheckGradientsOf(const Model& model, const Feeds& feeds,
                      const std::vector<std::string>& tensors,
                      const std::vector<std::string>& outputs, const Judgement& judgement) {
  Projection projection{outputs, {}, 0};
  Feeds seeded = feeds;
  Model extended = model.Clone();
  std::vector<Seed> seeds;
  for (const std::string& output : outputs) seeds.push_back({output, ""});
  const Gradients gradients = AddGradients(extended, tensors, seeds);
  for (const Barrier& barrier : gradients.barriers) {
    FAIL_CHECK(barrier.node << ": " << barrier.reason);
  }
  CHECK(gradients.unrelated.empty());
  if (!gradients.barriers.empty() || !gradients.unrelated.empty()) return;
  REQUIRE_NOTHROW(Verify(extended));

  const std::vector<Tensor> answers = Session(WithOutputs(model, outputs), {}).Run(feeds, outputs);
  for (size_t i = 0; i < outputs.size(); ++i) {
    const Tensor seed = Random(answers[i].dtype(), answers[i].dims(), 1000 + i, -1, 1);
    projection.weights.push_back(Doubles(seed));
    projection.size = std::hypot(projection.size, Norm(Doubles(answers[i])));
    seeded.emplace_back(gradients.seeds[i], seed);
  }
  const Model with_gradients = WithOutputs(extended, gradients.values);
  for (const bool optimize : {true, false}) {
    const std::vector<Tensor> computed =
        Session(with_gradients, {.optimize = optimize}).Run(seeded, gradients.values);
    for (size_t i = 0; i < tensors.size(); ++i) {
      CAPTURE(tensors[i], optimize, computed[i].dims());
      const std::vector<double> g = Doubles(computed[i]);
      REQUIRE(Norm(g) > 0);
      REQUIRE(std::isfinite(Norm(g)));
      CheckGradient(model, feeds, tensors[i], projection, computed[i], 2000 + i, judgement);
    }
  }
}

void CheckRule(const RuleCase& rule_case) {
  std::string text = rule_case.text;
  const bool is_double = rule_case.judgement.step == kDouble.step;
  for (size_t at; (at = text.find('$')) != std::string::npos;) {
    text.replace(at, 1, is_double ? "double" : "float");
  }
  CAPTURE(text);
  const Model model = ModelFromText(text);
  Feeds feeds = rule_case.feeds;
  std::vector<std::string> tensors, outputs;
  for (const Value* input : model.graph().inputs()) {
    const ValueType& type = *input->type();
    if (IsFloating(type.dtype) &&
        !std::count(rule_case.fixed.begin(), rule_case.fixed.end(), input->name())) {
      tensors.push_back(input->name());
    }
    if (std::any_of(feeds.begin(), feeds.end(),
                    [&](const auto& feed) { return feed.first == input->name(); })) {
      continue;
    }
    Dims dims;
    for (const auto& dim : type.dims) {
      const auto* number = std::get_if<int64_t>(&dim);
      dims.push_back(number ? *number : rule_case.lengths.at(std::get<std::string>(dim)));
    }
    feeds.emplace_back(input->name(),
                       Random(type.dtype, dims, feeds.size() + 1, rule_case.low, rule_case.high));
  }
  for (const Value* output : model.graph().outputs()) {
    if (IsFloating(output->type()->dtype)) outputs.push_back(output->name());
  }
  CheckGradientsOf(model, feeds, tensors, outputs, rule_case.judgement);
}

}  // namespace sparsefuse::test

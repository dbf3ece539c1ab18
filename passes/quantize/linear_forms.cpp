#include "passes/quantize/linear_forms.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>

#include "passes/latency/measure_layer.h"

namespace sparsefuse {
namespace {

// Sparse kernels do not gain from fewer zero blocks than about this; taken where nothing was
// measured.
constexpr double kUnmeasuredDensity = 0.7;

// Of a layer's X.
int64_t RowsOf(const Dims& shape) {
  const int64_t rows =
      std::accumulate(shape.begin(), shape.end() - 1, int64_t{1}, std::multiplies<>());
  return std::max<int64_t>(1, rows);
}

struct FormCandidate {
  LayerForm asked;
  LinearForm form = LinearForm::kFloat;
  bool sparse = false;
  std::string name;
};

// The first is float.
std::vector<FormCandidate> Candidates(const WeightForm& kind, Emit emit) {
  std::vector<FormCandidate> candidates = {{}};
  const bool int8 = kind.encoding == Encoding::kInt8;
  if (int8) {
    candidates.push_back(
        {{.kind = LayerForm::Kind::kStandardInt8}, LinearForm::kStandard, false, "standard int8"});
  } else if (emit == Emit::kStandard) {
    candidates.push_back(
        {{.kind = LayerForm::Kind::kMatMulNBits}, LinearForm::kStandard, false, "MatMulNBits"});
  }
  if (emit != Emit::kCustom) return candidates;
  const LayerForm dense{.kind = LayerForm::Kind::kOperator, .encoding = kind.encoding};
  candidates.push_back(
      {dense, LinearForm::kCustom, false, kind.density < 1 ? "the dense operator" : "custom int8"});
  if (kind.density < 1) {
    LayerForm sparse = dense;
    sparse.density = kind.density;
    candidates.push_back({sparse, LinearForm::kCustom, true, "the block-sparse operator"});
  }
  return candidates;
}

LinearChoice Choose(LatencyTable& table, const LayerShape& shape, std::span<const int64_t> rows,
                    const WeightForm& kind, Emit emit) {
  const std::vector<FormCandidate> candidates = Candidates(kind, emit);
  std::vector<LayerForm> forms;
  for (const FormCandidate& candidate : candidates) forms.push_back(candidate.asked);
  const FormChoice choice = ChooseForm(table, shape, rows, forms);
  std::vector<size_t> order(candidates.size() - 1);  // quantised ones, the fastest first
  std::iota(order.begin(), order.end(), size_t{1});
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return choice.speedup[a] > choice.speedup[b]; });
  const FormCandidate& best = candidates[order[0]];
  LinearChoice result{
      .form = best.form, .sparse = best.sparse, .speedup = choice.speedup[order[0]]};
  if (choice.form == 0 && kind.encoding == Encoding::kInt8) result.form = LinearForm::kFloat;
  if (order.size() > 1 && choice.speedup[order[1]] > 0) {
    result.over_other = result.speedup / choice.speedup[order[1]];
    result.other = candidates[order[1]].name;
  }
  return result;
}

double Rounded(double ratio) { return std::round(ratio * 100) / 100; }

}  // namespace

std::string_view FormName(LinearForm form) {
  switch (form) {
    case LinearForm::kFloat:
      return "float";
    case LinearForm::kStandard:
      return "standard";
    case LinearForm::kCustom:
      return "custom";
  }
  return "?";
}

std::vector<LayerForm> Int8Forms(Emit emit) {
  std::vector<LayerForm> forms;
  for (const FormCandidate& candidate : Candidates({}, emit)) forms.push_back(candidate.asked);
  return forms;
}

std::string Describe(const LinearChoice& choice) {
  std::string text(FormName(choice.form));
  if (choice.speedup > 0) text += fmt::format(", ×{:.2f} over fp32", choice.speedup);
  if (choice.over_other > 0)
    text += fmt::format(", ×{:.2f} over {}", choice.over_other, choice.other);
  return text;
}

nlohmann::json ToJson(const LinearChoice& choice) {
  nlohmann::json decision = {{"form", FormName(choice.form)}, {"speedup", Rounded(choice.speedup)}};
  if (choice.sparse) decision["sparse"] = true;
  if (choice.over_other > 0) {
    decision["over_other"] = Rounded(choice.over_other);
    decision["other"] = choice.other;
  }
  return decision;
}

LinearChoice ReadChoice(const nlohmann::json& decision, LinearChoice otherwise) {
  LinearChoice choice = std::move(otherwise);
  const std::string form = decision.value("form", "");
  for (const LinearForm known : {LinearForm::kFloat, LinearForm::kCustom, LinearForm::kStandard}) {
    if (form == FormName(known)) choice.form = known;
  }
  choice.sparse = decision.value("sparse", false);
  choice.speedup = decision.value("speedup", 0.0);
  choice.over_other = decision.value("over_other", 0.0);
  choice.other = decision.value("other", "the other form");
  return choice;
}

LinearChoice UnmeasuredChoice(const WeightForm& kind, Emit emit) {
  if (emit == Emit::kStandard) return {.form = LinearForm::kStandard};
  return {.form = LinearForm::kCustom, .sparse = kind.density <= kUnmeasuredDensity};
}

std::vector<LinearChoice> ChooseLinearForms(const std::vector<LinearLayer>& layers,
                                            const std::vector<WeightForm>& kinds,
                                            const std::vector<std::vector<Dims>>& shapes,
                                            const Context& context) {
  LatencyTable table = MachineLatencies(
      {.threads = 1, .operator_library = context.operator_library}, context.cache_folder);
  std::vector<LinearChoice> choices;
  for (size_t i = 0; i < layers.size(); ++i) {
    std::vector<int64_t> rows;
    for (const std::vector<Dims>& batch : shapes) rows.push_back(RowsOf(batch[i]));
    const LayerShape shape{layers[i].inputs, layers[i].outputs, !layers[i].bias.empty()};
    choices.push_back(Choose(table, shape, rows, kinds[i], context.emit));
    context.progress("layer timing", static_cast<int64_t>(i) + 1,
                     static_cast<int64_t>(layers.size()));
  }
  for (const std::string& note : table.notes()) spdlog::warn("{}", note);
  return choices;
}

}  // namespace sparsefuse

#include "passes/quantize/linear_forms.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <functional>
#include <numeric>

#include "passes/latency/measure_layer.h"

namespace sparsefuse {
namespace {

// Of a layer's X.
int64_t Rows(const Dims& shape) {
  const int64_t rows =
      std::accumulate(shape.begin(), shape.end() - 1, int64_t{1}, std::multiplies<>());
  return std::max<int64_t>(1, rows);
}

LinearChoice Choose(LatencyTable& table, const LayerShape& shape, std::span<const int64_t> rows,
                    std::span<const LayerForm> forms) {
  const FormChoice choice = ChooseForm(table, shape, rows, forms);
  std::vector<double> int8(choice.speedup.begin() + 1, choice.speedup.end());
  std::sort(int8.begin(), int8.end(), std::greater<>());
  return {.form = static_cast<LinearForm>(choice.form),
          .speedup = int8[0],
          .over_other = int8.size() > 1 && int8[1] > 0 ? int8[0] / int8[1] : 0};
}

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
  std::vector<LayerForm> forms = {{}, {.kind = LayerForm::Kind::kStandardInt8}};
  if (emit == Emit::kCustom) forms.push_back({.kind = LayerForm::Kind::kOperator});
  return forms;
}

std::string Describe(const LinearChoice& choice) {
  std::string text(FormName(choice.form));
  if (choice.speedup > 0) text += fmt::format(", ×{:.2f} over fp32", choice.speedup);
  if (choice.over_other > 0) {
    text += fmt::format(", ×{:.2f} over {} int8", choice.over_other,
                        choice.form == LinearForm::kCustom ? "standard" : "custom");
  }
  return text;
}

std::vector<LinearChoice> ChooseLinearForms(const std::vector<LinearLayer>& layers,
                                            const std::vector<std::vector<Dims>>& shapes,
                                            const Context& context) {
  LatencyTable table = MachineLatencies(
      {.threads = 1, .operator_library = context.operator_library}, context.cache_folder);
  const std::vector<LayerForm> forms = Int8Forms(context.emit);
  std::vector<LinearChoice> choices;
  for (size_t i = 0; i < layers.size(); ++i) {
    std::vector<int64_t> rows;
    for (const std::vector<Dims>& batch : shapes) rows.push_back(Rows(batch[i]));
    const LayerShape shape{layers[i].inputs, layers[i].outputs, !layers[i].bias.empty()};
    choices.push_back(Choose(table, shape, rows, forms));
    context.progress("layer timing", static_cast<int64_t>(i) + 1,
                     static_cast<int64_t>(layers.size()));
  }
  for (const std::string& note : table.notes()) spdlog::warn("{}", note);
  return choices;
}

}  // namespace sparsefuse

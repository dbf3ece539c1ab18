// kernels: what the operator library holds, which of it this machine runs and why not the rest.

#include <spdlog/spdlog.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>

#include "cli/commands.h"
#include "cli/console.h"
#include "cli/operator_library.h"
#include "cli/system.h"
#include "cli/text.h"
#include "kernels/linear/linear.h"
#include "passes/latency/machine.h"
#include "passes/latency/measure_layer.h"
#include "passes/lower/linear_body.h"
#include "passes/quantize/linear_forms.h"

namespace sparsefuse {
namespace {

using Json = nlohmann::ordered_json;

constexpr Encoding kEncodings[] = {Encoding::kInt8, Encoding::kInt4, Encoding::kNested1,
                                   Encoding::kNested4};
constexpr const char* kVariables[] = {"SPARSEFUSE_ISA", "SPARSEFUSE_GATE"};

std::string_view EncodingName(Encoding encoding) {
  constexpr std::string_view kNames[] = {"int8", "int4", "nested1", "nested4"};
  return kNames[static_cast<size_t>(encoding)];
}

// Why this kernel is used or not; null: why none is. Without the kernel's name in front.
std::string Reason(const LinearKernel* kernel) {
  std::array<char, 256> text{};
  ExplainLinearChoice(kernel, text);
  std::string reason = text.data();
  const std::string name = kernel ? fmt::format("{}: ", kernel->name) : "";
  return reason.starts_with(name) ? reason.substr(name.size()) : reason;
}

Json DescribeKernels() {
  Json kernels = Json::array();
  for (const LinearKernel* kernel : AllLinearKernels()) {
    std::array<char, 256> needs{};
    DescribeCpuFeatures(kernel->needs, needs);
    kernels.push_back({{"name", kernel->name},
                       {"needs", needs.data()},
                       {"runs_here", DetectCpuFeatures().Contains(kernel->needs)},
                       {"used", kernel == SelectLinearKernel()},
                       {"reason", Reason(kernel)}});
  }
  return kernels;
}

// The plain ones, with what may be appended to their names: "QuantizedLinear8Relu".
Json DescribeOperators() {
  Json operators = Json::array();
  for (const bool sparse : {false, true}) {
    for (const Encoding encoding : kEncodings) {
      Json activations = Json::array();
      for (const Activation activation : kActivations) {
        if (activation != Activation::kNone) activations.push_back(ActivationName(activation));
      }
      operators.push_back({{"name", OperatorName({encoding, sparse, Activation::kNone})},
                           {"encoding", EncodingName(encoding)},
                           {"block_sparse", sparse},
                           {"with_activation", activations}});
    }
  }
  return operators;
}

// What a layer can be, in the order of the table: first what `quantize` chooses from.
std::vector<LayerForm> Forms(const KernelsOptions& options) {
  using Kind = LayerForm::Kind;
  std::vector<LayerForm> forms = Int8Forms(Emit::kCustom);
  forms.push_back({.kind = Kind::kMatMulNBits});
  for (const Encoding encoding : kEncodings) {
    if (encoding != Encoding::kInt8) forms.push_back({Kind::kOperator, encoding, 1});
  }
  if (!options.density || *options.density == 1) return forms;
  for (const Encoding encoding : kEncodings) {
    forms.push_back({Kind::kOperator, encoding, *options.density});
  }
  return forms;
}

// Times of the layer that --shape names, and which form `quantize` would give it.
Json DescribeLayer(const KernelsOptions& options, const std::filesystem::path& library) {
  const LayerShape shape{options.shape->first, options.shape->second};
  const std::vector<LayerForm> forms = Forms(options);
  LatencyTable table = MachineLatencies(
      {.threads = static_cast<int>(options.threads), .operator_library = library}, CacheFolder());
  const Progress progress = MakeProgress(options.common);
  const std::vector<int64_t> counts =
      options.rows.empty() ? std::vector<int64_t>{1, 128} : options.rows;
  Json by_rows = Json::array();
  for (const int64_t rows : counts) {
    progress("layer timing", static_cast<int64_t>(by_rows.size()),
             static_cast<int64_t>(counts.size()));
    const std::vector<double> ms = table.Milliseconds(shape, rows, forms);
    Json times = Json::array();
    for (size_t i = 0; i < forms.size(); ++i) {
      const bool runs = std::isfinite(ms[i]);
      times.push_back({{"form", FormName(forms[i])},
                       {"ms", runs ? Json(ms[i]) : Json()},
                       {"speedup", runs ? Json(ms[0] / ms[i]) : Json()}});
    }
    const FormChoice choice = ChooseForm(table, shape, {&rows, 1}, Int8Forms(Emit::kCustom));
    by_rows.push_back({{"rows", rows},
                       {"times", std::move(times)},
                       {"quantize_takes", FormName(forms[choice.form])}});
  }
  ClearProgress();
  for (const std::string& note : table.notes()) spdlog::warn("{}", note);
  return {{"inputs", shape.inputs},
          {"outputs", shape.outputs},
          {"threads", options.threads},
          {"by_rows", std::move(by_rows)}};
}

Json Describe(const KernelsOptions& options) {
  const std::filesystem::path library = FindOperatorLibrary(options.operator_library);
  Json json = {{"tool", DescribeTool()},
               {"cpu", CpuModelName()},
               {"operator_library", library.string()},
               {"kernels", DescribeKernels()},
               {"problem", SelectLinearKernel() ? Json() : Json(Reason(nullptr))},
               {"operators", DescribeOperators()},
               {"environment", Json::object()}};
  for (const char* variable : kVariables) {
    const char* value = std::getenv(variable);
    json["environment"][variable] = value ? Json(value) : Json();
  }
  if (options.shape) json["layer"] = DescribeLayer(options, library);
  return json;
}

std::string Text(const Json& field) { return Printable(field.get<std::string>()); }

// "6.123 ×2.10", as wide as a column.
std::string Cell(const Json& time) {
  if (time["ms"].is_null()) return fmt::format("{:>18}", "cannot run");
  return fmt::format("{:>10.4g}  ×{:<5.2f}", time["ms"].get<double>(),
                     time["speedup"].get<double>());
}

std::string LayerText(const Json& layer) {
  const Json& by_rows = layer["by_rows"];
  std::string text = fmt::format("\nlayer {}→{}, {}, milliseconds and speed over float\n{:<28}",
                                 layer["inputs"].get<int64_t>(), layer["outputs"].get<int64_t>(),
                                 Plural(layer["threads"].get<int64_t>(), "thread"), "");
  for (const Json& column : by_rows) {
    text += fmt::format("{:>18}", Plural(column["rows"].get<int64_t>(), "row"));
  }
  for (size_t i = 0; i < by_rows[0]["times"].size(); ++i) {
    text += fmt::format("\n{:<28}", Text(by_rows[0]["times"][i]["form"]));
    for (const Json& column : by_rows) text += Cell(column["times"][i]);
  }
  text += fmt::format("\n{:<28}", "quantize takes");
  for (const Json& column : by_rows) text += fmt::format("{:>18}", Text(column["quantize_takes"]));
  return text + '\n';
}

std::string AsText(const Json& json) {
  std::string text =
      Line("cpu", fmt::format("{} · {}", Text(json["cpu"]), Text(json["tool"]["cpu"]))) +
      Line("library", Text(json["operator_library"])) + '\n';
  size_t widest = 0;
  for (const Json& kernel : json["kernels"])
    widest = std::max(widest, Text(kernel["needs"]).size());
  constexpr std::string_view kRow = "{:<12}{:<6}{:<{}}  {}\n";
  text += fmt::format(kRow, "kernel", "runs", "needs", widest, "why");
  for (const Json& kernel : json["kernels"]) {
    text += fmt::format(kRow, Text(kernel["name"]), kernel["runs_here"].get<bool>() ? "yes" : "no",
                        Text(kernel["needs"]), widest, Text(kernel["reason"]));
  }
  if (json["problem"].is_string()) {
    text += fmt::format("no kernel can be used: {}\n", Text(json["problem"]));
  }
  constexpr std::string_view kOperatorRow = "{:<28}{:<12}{:<14}{}\n";
  text += '\n' + fmt::format(kOperatorRow, "operator", "weights", "", "also with");
  for (const Json& op : json["operators"]) {
    text += fmt::format(kOperatorRow, Text(op["name"]), Text(op["encoding"]),
                        op["block_sparse"].get<bool>() ? "block-sparse" : "dense",
                        fmt::join(op["with_activation"].get<std::vector<std::string>>(), ", "));
  }
  for (const auto& [variable, value] : json["environment"].items()) {
    if (value.is_string()) text += fmt::format("\n{}={}\n", variable, Text(value));
  }
  if (json.contains("layer")) text += LayerText(json["layer"]);
  return text;
}

}  // namespace

void Run(const KernelsOptions& options) {
  const Json json = Describe(options);
  if (options.common.format == Format::kJson) return PrintJson(json);
  Print(AsText(json));
}

}  // namespace sparsefuse

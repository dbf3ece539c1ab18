// kernels: what the operator library holds, which of it this machine runs and why not the rest.

#include <array>
#include <cstdlib>

#include "cli/commands.h"
#include "cli/console.h"
#include "cli/operator_library.h"
#include "cli/system.h"
#include "cli/text.h"
#include "kernels/linear/linear.h"

namespace sparsefuse {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kVariables[] = {"SPARSEFUSE_ISA", "SPARSEFUSE_GATE"};

std::string_view EncodingName(Encoding encoding) {
  constexpr std::string_view kNames[] = {"int8", "int4", "nested1", "nested4"};
  return kNames[static_cast<size_t>(encoding)];
}

std::string OperatorName(Encoding encoding, bool sparse) {
  constexpr std::string_view kSuffixes[] = {"8", "4", "Nested1", "Nested4"};
  return fmt::format("{}Linear{}", sparse ? "BlockSparse" : "Quantized",
                     kSuffixes[static_cast<size_t>(encoding)]);
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
    for (const Encoding encoding :
         {Encoding::kInt8, Encoding::kInt4, Encoding::kNested1, Encoding::kNested4}) {
      Json activations = Json::array();
      for (const Activation activation : kActivations) {
        if (activation != Activation::kNone) activations.push_back(ActivationName(activation));
      }
      operators.push_back({{"name", OperatorName(encoding, sparse)},
                           {"encoding", EncodingName(encoding)},
                           {"block_sparse", sparse},
                           {"with_activation", activations}});
    }
  }
  return operators;
}

Json Describe(const KernelsOptions& options) {
  Json json = {{"tool", DescribeTool()},
               {"operator_library", FindOperatorLibrary(options.operator_library).string()},
               {"kernels", DescribeKernels()},
               {"problem", SelectLinearKernel() ? Json() : Json(Reason(nullptr))},
               {"operators", DescribeOperators()},
               {"environment", Json::object()}};
  for (const char* variable : kVariables) {
    const char* value = std::getenv(variable);
    json["environment"][variable] = value ? Json(value) : Json();
  }
  return json;
}

std::string Text(const Json& field) { return Printable(field.get<std::string>()); }

std::string AsText(const Json& json) {
  std::string text = Line("cpu", Text(json["tool"]["cpu"])) +
                     Line("library", Text(json["operator_library"])) + '\n';
  constexpr std::string_view kRow = "{:<12}{:<6}{:<52}  {}\n";
  text += fmt::format(kRow, "kernel", "runs", "needs", "why");
  for (const Json& kernel : json["kernels"]) {
    text += fmt::format(kRow, Text(kernel["name"]), kernel["runs_here"].get<bool>() ? "yes" : "no",
                        Text(kernel["needs"]), Text(kernel["reason"]));
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
    if (value.is_string()) text += fmt::format("\n{}={}", variable, Text(value));
  }
  if (!text.ends_with('\n')) text += '\n';
  return text;
}

}  // namespace

void Run(const KernelsOptions& options) {
  const Json json = Describe(options);
  if (options.common.format == Format::kJson) return PrintJson(json);
  Print(AsText(json));
}

}  // namespace sparsefuse

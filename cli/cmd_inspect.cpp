// inspect: what a model consists of, and what of it can be compressed. Runs nothing.

#include <fmt/format.h>

#include <algorithm>

#include "cli/commands.h"
#include "cli/console.h"
#include "cli/structure_text.h"
#include "cli/text.h"
#include "onnx_io/reader.h"
#include "passes/analysis/inventory.h"
#include "passes/analysis/structure.h"
#include "passes/data/match.h"
#include "passes/quantize/convolution_plan.h"
#include "passes/quantize/embedding.h"
#include "passes/quantize/linear.h"

namespace sparsefuse {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::string_view kKindNames[] = {"linear", "convolution", "embedding", "other"};

struct Inspection {
  Model model;
  uint64_t file_bytes = 0;
  Inventory inventory;
  Structure structure;
  std::vector<Finding> layers;  // action: can be compressed; reason: cannot
};

// What `quantize` would take, before it measures anything.
std::vector<Finding> FindCompressible(const Model& original) {
  Model model = original.Clone();
  Context context;
  context.teacher = &original;
  PassStats stats;
  for (const LinearLayer& layer : FindLinearLayers(model, context, stats)) {
    stats.Done(*layer.product, fmt::format("linear layer {}→{}", layer.inputs, layer.outputs));
  }
  for (const EmbeddingTable& table : FindEmbeddings(model, context, stats)) {
    const Dims& dims = table.table->constant()->dims();
    stats.Done(*table.gathers.front(), fmt::format("embedding {}×{}", dims[0], dims[1]));
  }
  for (const Node* node : model.graph().TopologicalOrder()) {
    if (!node->Is("Conv")) continue;
    const std::string reason = WhyFloat(*node, context);
    if (reason.empty()) {
      stats.Done(*node, fmt::format("convolution {}", ToString(node->constant_input(1)->dims())));
    } else {
      stats.Skip(*node, reason);
    }
  }
  return std::move(stats.findings);
}

std::string TypeText(const Value& value) {
  return value.type() ? Describe(*value.type()) : "unknown type";
}

std::string OperatorsText(const Inventory& inventory) {
  std::vector<std::pair<std::string, int64_t>> sorted(inventory.operators.begin(),
                                                      inventory.operators.end());
  std::stable_sort(sorted.begin(), sorted.end(),
                   [](const auto& a, const auto& b) { return a.second > b.second; });
  std::string text;
  for (const auto& [op, count] : sorted) {
    text += fmt::format("{}{} {}", text.empty() ? "" : ", ", count, Printable(op));
  }
  return text;
}

// A list under one label: the label on its first line only.
std::string List(std::string_view label, const std::vector<std::string>& lines) {
  std::string text;
  for (const std::string& line : lines) text += Line(text.empty() ? label : "", line);
  return text;
}

std::string SizeText(const Inspection& inspection) {
  std::string text = BytesText(inspection.file_bytes);
  uint64_t weights = 0;
  for (size_t kind = 0; kind < std::size(kKindNames); ++kind) {
    const WeightGroup& group = inspection.inventory.weights[kind];
    weights += group.bytes;
    if (group.tensors == 0) continue;
    text += fmt::format("{} {} {} ({})", weights == group.bytes ? ":" : ",", kKindNames[kind],
                        BytesText(group.bytes), Plural(group.tensors, "tensor"));
  }
  const uint64_t rest = inspection.file_bytes - std::min(weights, inspection.file_bytes);
  return text + fmt::format(", graph {}", BytesText(rest));
}

std::string AsText(const Inspection& inspection, const InspectOptions& options) {
  const Model& model = inspection.model;
  const Inventory& inventory = inspection.inventory;
  std::vector<std::string> opsets, inputs, outputs, functions, metadata;
  for (const auto& [domain, version] : model.opset_imports) {
    opsets.push_back(fmt::format("{}{}", domain.empty() ? "" : Printable(domain) + " ", version));
  }
  const auto describe = [](const Value* value) {
    return fmt::format("{}  {}", Printable(value->name()), TypeText(*value));
  };
  for (const Value* value : model.graph().inputs()) {
    if (!value->is_initializer()) inputs.push_back(describe(value));
  }
  for (const Value* value : model.graph().outputs()) outputs.push_back(describe(value));
  for (const auto& function : model.functions()) {
    functions.push_back(
        fmt::format("{}.{}", Printable(function->domain), Printable(function->name)));
  }
  for (const auto& [key, value] : model.metadata) {
    metadata.push_back(fmt::format("{} = {}", Printable(key), Printable(value)));
  }
  const Detail detail = options.common.verbosity > 0 ? Detail::kEach : Detail::kGrouped;
  FindingLines layers = Summarize(inspection.layers, detail);
  if (layers.done.empty()) layers.done.push_back("nothing");
  StructureLines structure = Describe(inspection.structure);
  if (structure.prunable.empty()) structure.prunable.push_back("nothing that can be pruned");

  std::string text =
      Line("model", fmt::format("{} · {} parameters", Printable(options.model.filename().string()),
                                CountText(inventory.parameters))) +
      Line("format",
           fmt::format("opset {} · IR {}{}", fmt::join(opsets, ", "), model.ir_version,
                       model.producer_name.empty() ? ""
                                                   : " · by " + Printable(model.producer_name) +
                                                         " " + Printable(model.producer_version))) +
      List("inputs", inputs) + List("outputs", outputs) + Line("size", SizeText(inspection));
  if (inventory.external_bytes > 0) {
    text += Line("external", BytesText(inventory.external_bytes) + " in files beside the model");
  }
  text += Line(
      "nodes",
      fmt::format("{}{}: {}", inventory.nodes,
                  inventory.subgraphs > 0 ? " in " + Plural(inventory.subgraphs + 1, "graph") : "",
                  OperatorsText(inventory)));
  text += List("functions", functions) + List("metadata", metadata) +
          List("structure", structure.prunable) + List("left out", structure.left_alone) +
          List("frozen", structure.frozen);
  return text + "can be compressed\n" + List("", layers.done) +
         (layers.skipped.empty() ? "" : "stays as it is\n" + List("", layers.skipped));
}

Json AsJson(const Inspection& inspection, const InspectOptions& options) {
  const Model& model = inspection.model;
  Json json = {{"model", options.model.string()},
               {"bytes", inspection.file_bytes},
               {"external_bytes", inspection.inventory.external_bytes},
               {"parameters", inspection.inventory.parameters},
               {"ir_version", model.ir_version},
               {"producer", model.producer_name},
               {"producer_version", model.producer_version},
               {"opsets", Json::object()},
               {"inputs", Json::array()},
               {"outputs", Json::array()},
               {"weights", Json::object()},
               {"nodes", inspection.inventory.nodes},
               {"subgraphs", inspection.inventory.subgraphs},
               {"operators", inspection.inventory.operators},
               {"functions", Json::array()},
               {"metadata", Json::object()},
               {"structure", StructureJson(inspection.structure)},
               {"compressible", Json::array()},
               {"not_compressible", Json::array()}};
  for (const auto& [domain, version] : model.opset_imports) json["opsets"][domain] = version;
  for (const Value* value : model.graph().inputs()) {
    if (value->is_initializer()) continue;
    json["inputs"].push_back({{"name", value->name()}, {"type", TypeText(*value)}});
  }
  for (const Value* value : model.graph().outputs()) {
    json["outputs"].push_back({{"name", value->name()}, {"type", TypeText(*value)}});
  }
  for (size_t kind = 0; kind < std::size(kKindNames); ++kind) {
    const WeightGroup& group = inspection.inventory.weights[kind];
    json["weights"][std::string(kKindNames[kind])] = {
        {"tensors", group.tensors}, {"elements", group.elements}, {"bytes", group.bytes}};
  }
  for (const auto& function : model.functions()) {
    json["functions"].push_back({{"domain", function->domain}, {"name", function->name}});
  }
  for (const auto& [key, value] : model.metadata) json["metadata"][key] = value;
  for (const Finding& finding : inspection.layers) {
    const bool can = finding.reason.empty();
    json[can ? "compressible" : "not_compressible"].push_back(
        {{"node", finding.subject},
         {"op", finding.op},
         {can ? "what" : "reason", can ? finding.action : finding.reason}});
  }
  return json;
}

}  // namespace

void Run(const InspectOptions& options) {
  Inspection inspection{.model = ReadModel(options.model)};
  inspection.file_bytes = FileBytes(inspection.model, options.model.string());
  inspection.inventory = TakeInventory(inspection.model);
  inspection.structure = FindStructure(inspection.model);
  inspection.layers = FindCompressible(inspection.model);
  if (options.common.format == Format::kJson) return PrintJson(AsJson(inspection, options));
  Print(AsText(inspection, options));
}

}  // namespace sparsefuse

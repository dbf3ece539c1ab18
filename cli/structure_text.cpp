#include "cli/structure_text.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "cli/text.h"
#include "onnx_io/error.h"

namespace sparsefuse {
namespace {

using Json = nlohmann::ordered_json;

// Of the frozen dimensions, those that most weights have.
constexpr size_t kShownFrozen = 4;

std::string BlocksText(const std::vector<Block>& blocks) {
  Tally kinds;
  for (const Block& block : blocks) kinds.Add(std::string(Name(block.kind)));
  std::string text;
  for (const auto& [kind, count] : kinds.rows()) {
    text += fmt::format("{}{} {}", text.empty() ? "" : ", ", count, kind);
  }
  return fmt::format("{} ({})", Plural(static_cast<int64_t>(blocks.size()), "removable block"),
                     text);
}

}  // namespace

StructureLines Describe(const Structure& structure) {
  StructureLines lines;
  Tally prunable;
  std::vector<std::pair<std::string, Tally>> left_alone;  // by reason
  for (const Module& module : structure.modules) {
    const std::string text = fmt::format("{} {}", module.units, Name(module.kind));
    if (module.reason.empty()) {
      prunable.Add(text);
      continue;
    }
    const auto same = std::find_if(left_alone.begin(), left_alone.end(),
                                   [&](const auto& row) { return row.first == module.reason; });
    Tally& tally = same != left_alone.end()
                       ? same->second
                       : left_alone.emplace_back(module.reason, Tally()).second;
    tally.Add(text);
  }
  if (!prunable.rows().empty()) lines.prunable.push_back(prunable.Text());
  if (!structure.blocks.empty()) lines.prunable.push_back(BlocksText(structure.blocks));
  for (const auto& [reason, tally] : left_alone) {
    lines.left_alone.push_back(fmt::format("{}: {}", tally.Text(), reason));
  }
  for (size_t i = 0; i < std::min(structure.frozen.size(), kShownFrozen); ++i) {
    const FrozenAxes& frozen = structure.frozen[i];
    const std::string size = frozen.size < 0 ? "open size" : fmt::format("{}", frozen.size);
    lines.frozen.push_back(fmt::format("{} in {}: {}", size, Plural(frozen.weights, "weight"),
                                       Printable(frozen.reason)));
  }
  if (structure.frozen.size() > kShownFrozen) {
    lines.frozen.push_back(fmt::format("{} more", structure.frozen.size() - kShownFrozen));
  }
  return lines;
}

Json StructureJson(const Structure& structure) {
  Json modules = Json::array(), blocks = Json::array(), frozen = Json::array();
  for (const Module& module : structure.modules) {
    Json tensors = Json::array();
    for (const ModuleAxis& axis : module.axes) {
      tensors.push_back({{"name", axis.tensor->name()}, {"axis", axis.axis}});
    }
    Json entry = {{"kind", Name(module.kind)},
                  {"units", module.units},
                  {"parameters_per_unit", module.parameters_per_unit},
                  {"tensors", std::move(tensors)}};
    if (!module.reason.empty()) entry["left_alone"] = module.reason;
    modules.push_back(std::move(entry));
  }
  for (const Block& block : structure.blocks) {
    blocks.push_back({{"kind", Name(block.kind)},
                      {"output", block.add->output(0)->name()},
                      {"keeps", block.add->input(block.kept_input)->name()},
                      {"nodes", block.removed.size()},
                      {"parameters", block.parameters}});
  }
  for (const FrozenAxes& axes : structure.frozen) {
    frozen.push_back({{"size", axes.size},
                      {"weights", axes.weights},
                      {"example", axes.example->name()},
                      {"reason", axes.reason}});
  }
  return {{"modules", std::move(modules)},
          {"blocks", std::move(blocks)},
          {"frozen", std::move(frozen)}};
}

}  // namespace sparsefuse

#include "cli/sensitivity_text.h"

#include <fmt/format.h>

#include <cmath>
#include <initializer_list>
#include <string_view>
#include <utility>
#include <vector>

#include "cli/text.h"
#include "onnx_io/error.h"

namespace sparsefuse {
namespace {

using nlohmann::json;

// "3e-05", "~3e-05" where it was not measured.
std::string KlText(const json& option) {
  return fmt::format("{}{:.0e}", option["measured"].is_null() ? "~" : "",
                     option["expected"].get<double>());
}

// Of a list, the option whose `key` is nearest to `wanted`; null if none is within `slack`.
json Nearest(const json& options, const char* key, double wanted, double slack) {
  json nearest;
  double least = slack;
  for (const json& option : options) {
    const double distance = std::abs(option[key].get<double>() - wanted);
    if (distance > least) continue;
    least = distance;
    nearest = option;
  }
  return nearest;
}

std::string Cell(const json& option) { return option.is_null() ? "–" : KlText(option); }

std::string UnitsRow(const json& module) {
  const auto units = module["units"].get<double>();
  const auto left = [&](const char* level) {
    return module[level].is_null() ? std::string("all")
                                   : fmt::format("{}", module[level].get<int64_t>());
  };
  std::string row = fmt::format("  {:<22} {:>7} {:>7}", module["what"].get<std::string>(),
                                left("free"), left("cheap"));
  for (const double share : {0.75, 0.5, 0.25}) {
    row += fmt::format(" {:>7}",
                       Cell(Nearest(module["options"], "keep", share * units, 0.13 * units)));
  }
  return fmt::format("{}  {}\n", row, Printable(module["before"][0].get<std::string>()));
}

std::string MatrixRow(const json& matrix) {
  const json none = json::array();
  const json& bits = matrix.contains("bits") ? matrix["bits"] : none;
  const json& ranks = matrix.contains("ranks") ? matrix["ranks"] : none;
  const auto level = [&](const char* name) {
    const json& found = matrix[name]["bits"];
    return found.is_null() ? std::string("> 8") : fmt::format("{}", found.get<int64_t>());
  };
  const auto shape =
      fmt::format("{}×{}", matrix["inputs"].get<int64_t>(), matrix["outputs"].get<int64_t>());
  std::string row = fmt::format("  {:<22} {:>7} {:>7}", shape, level("free"), level("cheap"));
  for (const double wanted : {8., 6., 4., 3.}) {
    row += fmt::format(" {:>7}", Cell(Nearest(bits, "bits", wanted, 0.5)));
  }
  const double full = std::min(matrix["inputs"].get<double>(), matrix["outputs"].get<double>());
  row += fmt::format(" {:>7}", Cell(Nearest(ranks, "rank", 0.5 * full, 1)));
  return fmt::format("{}  {}\n", row, Printable(matrix["node"].get<std::string>()));
}

std::string AgreementText(const json& agreement) {
  std::string text;
  for (const char* kind : {"all", "units", "bits", "ranks"}) {
    const json& own = agreement[kind];
    if (own["spearman"].is_null()) continue;
    text += fmt::format("{}{} {:.2f} ({})", text.empty() ? "" : ", ", kind,
                        own["spearman"].get<double>(), own["options"].get<int64_t>());
  }
  return text.empty() ? "too few measurements to tell" : text;
}

}  // namespace

std::string SensitivityText(const json& sensitivity) {
  std::string text, units, matrices;
  std::vector<std::pair<std::string, std::string>> left_out;
  for (const json& module : sensitivity["modules"]) {
    if (!module.contains("left_out")) units += UnitsRow(module);
  }
  for (const json& matrix : sensitivity["matrices"]) {
    if (matrix.contains("bits")) matrices += MatrixRow(matrix);
  }
  const auto heading = [](std::string_view what, std::initializer_list<std::string_view> columns) {
    std::string line = fmt::format("\n{:<24}", what);
    for (const std::string_view column : columns) line += fmt::format(" {:>7}", column);
    return line + "\n";
  };
  if (!units.empty()) {
    text += heading("units that stay", {"free", "cheap", "3/4", "1/2", "1/4", "before"}) + units;
  }
  if (!matrices.empty()) {
    text +=
        heading("matrices", {"free", "cheap", "8 bits", "6 bits", "4 bits", "3 bits", "rank ½"}) +
        matrices;
  }
  if (sensitivity.contains("agreement")) {
    text += "\n" + Line("agreement", "rank correlation of predicted with measured KL: " +
                                         AgreementText(sensitivity["agreement"]));
  }
  return text +
         Line("reading",
              fmt::format("KL per answer in nats, ~ predicted; free: at most {:.0e}, cheap: {:.0e}",
                          sensitivity["free"].get<double>(), sensitivity["cheap"].get<double>()));
}

}  // namespace sparsefuse

// passes: the pass table with parameters, from the registry.

#include "cli/commands.h"
#include "cli/console.h"
#include "passes/framework/pass.h"
#include "passes/framework/reference_docs.h"

namespace sparsefuse {
namespace {

using Json = nlohmann::ordered_json;

[[noreturn]] void UnknownPass(const std::string& name) {
  std::vector<std::string> names;
  for (const PassInfo* pass : AllPasses()) names.emplace_back(pass->name);
  const std::string nearest = Nearest(name, names);
  throw UserError(ErrorCode::kUsage, fmt::format("no pass is called \"{}\"", Printable(name)),
                  nearest.empty() ? fmt::format("there are {}", fmt::join(names, ", "))
                                  : fmt::format("did you mean {}?", nearest));
}

std::string ParameterLine(const Json& parameter) {
  std::string text =
      fmt::format("    {:<18} {} = {}\n                       {}",
                  parameter["name"].get<std::string>(), parameter["type"].get<std::string>(),
                  parameter["default"].dump(), parameter["summary"].get<std::string>());
  if (parameter.contains("choices")) text += " One of " + parameter["choices"].dump() + ".";
  return text + "\n";
}

}  // namespace

void Run(const PassesOptions& options) {
  if (!options.name.empty() && !FindPass(options.name)) UnknownPass(options.name);
  switch (options.common.format) {
    case Format::kMarkdown:
      return Print(RenderConfigMarkdown());
    case Format::kSchema:
      return Print(RenderConfigSchema());
    default:
      break;
  }
  Json passes = Json::array();
  for (Json& pass : DescribePasses()) {
    if (options.name.empty() || pass["name"] == options.name) passes.push_back(std::move(pass));
  }
  if (options.common.format == Format::kJson) return PrintJson(passes);
  for (const Json& pass : passes) {
    Print(fmt::format("{:<18} {}\n", pass["name"].get<std::string>(),
                      pass["summary"].get<std::string>()));
    if (options.name.empty()) continue;
    for (const Json& parameter : pass["parameters"]) Print(ParameterLine(parameter));
  }
}

}  // namespace sparsefuse

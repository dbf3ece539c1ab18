#include "tests/unit/analysis/graphs.h"

#include <fmt/format.h>

#include <regex>

#include "onnx_io/text.h"

namespace sparsefuse::test {
namespace {

std::string Line(const Module& module) {
  std::string line = fmt::format("{} {}:", module.units, Name(module.kind));
  for (const ModuleAxis& axis : module.axes) {
    line += fmt::format(" {}.{}", axis.tensor->name(), axis.axis);
  }
  if (!module.sizes.empty()) line += " |";
  for (const ModuleSize& size : module.sizes) {
    line += size.use.attribute.empty()
                ? fmt::format(" {}[{}]", size.use.node->op(), size.use.element)
                : fmt::format(" {} {}", size.use.node->op(), size.use.attribute);
  }
  return line;
}

}  // namespace

Model ParseGraph(std::string text) {
  static const std::regex weight(R"(float\[([0-9,]+)\] (\w+) = ([?+]))");
  unsigned state = 1;
  for (std::smatch match; std::regex_search(text, match, weight);) {
    int64_t count = 1;
    const std::string dims = match[1];
    for (size_t begin = 0; begin < dims.size();) {
      size_t length = 0;
      count *= std::stoll(dims.substr(begin), &length);
      begin += length + 1;
    }
    const double low = match[3] == "+" ? 0.1 : -0.5;
    std::string values;
    for (int64_t i = 0; i < count; ++i) {
      state = state * 1664525U + 1013904223U;  // Numerical Recipes' generator
      values +=
          fmt::format("{}{:.5f}", i ? "," : "", static_cast<int>(state >> 16) / 65536.0 + low);
    }
    text = match.prefix().str() + "float[" + dims + "] " + match[2].str() + " = {" + values + "}" +
           match.suffix().str();
  }
  return ModelFromText(text);
}

std::vector<std::string> Lines(const Structure& structure) {
  std::vector<std::string> lines;
  for (const Module& module : structure.modules) {
    if (module.reason.empty()) lines.push_back(Line(module));
  }
  for (const Block& block : structure.blocks) {
    lines.push_back(fmt::format("block {}: keeps {}", Name(block.kind),
                                block.add->input(block.kept_input)->name()));
  }
  return lines;
}

std::vector<std::string> LeftAlone(const Structure& structure) {
  std::vector<std::string> lines;
  for (const Module& module : structure.modules) {
    if (!module.reason.empty()) lines.push_back(Line(module) + " - " + module.reason);
  }
  return lines;
}

std::vector<std::string> Frozen(const Structure& structure) {
  std::vector<std::string> lines;
  for (const FrozenAxes& frozen : structure.frozen) {
    lines.push_back(fmt::format("{} in {}: {}", frozen.size, frozen.weights, frozen.reason));
  }
  return lines;
}

}  // namespace sparsefuse::test

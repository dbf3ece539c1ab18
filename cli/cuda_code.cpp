#include "cli/cuda_code.h"

#include <fmt/format.h>

#include <chrono>

#include "cli/console.h"
#include "cli/signals.h"
#include "passes/cuda/compiler.h"
#include "passes/cuda/source.h"

namespace sparsefuse {
namespace {

using Json = nlohmann::ordered_json;

std::string PatternText(const CudaLayer& layer) {
  if (layer.pattern == cuda::Pattern::kDense) return "dense";
  const std::string kept = fmt::format("{:.0f} % kept", 100 * layer.density());
  if (layer.pattern == cuda::Pattern::kQuads) return "blocks of 4 inputs × 32 outputs, " + kept;
  return fmt::format("blocks of 64 inputs × {} outputs, {}", 32 * layer.shared_panels, kept);
}

// The same layer without zeros.
CudaLayer Dense(CudaLayer layer) {
  layer.shape.sparse = false;
  layer.pattern = cuda::Pattern::kDense;
  layer.groups = layer.shape.panels() * GroupsPerPanel(layer.shape.inputs);
  layer.shared_panels = 4;
  return layer;
}

double ManyRows(const CudaLayer& layer, const CudaTarget& target, int64_t rows) {
  return PredictManyRows(layer, target, rows, ChooseTile(layer, target, rows));
}

std::string LayerText(const CudaCode& code, const CudaCode::Compiled& compiled, size_t i) {
  const CudaLayer& layer = code.layers[i];
  const CudaTarget& target = *compiled.plan.target;
  const double many = ManyRows(layer, target, code.rows);
  const double dense = ManyRows(Dense(layer), target, code.rows);
  std::string text =
      fmt::format("{} {}×{}{}, {}: {:.0f} µs at 1 row, {:.0f} µs at {} by tiles of {} outputs",
                  cuda::EncodingName(layer.shape.encoding), layer.shape.inputs, layer.shape.outputs,
                  layer.half ? " (float16)" : "", PatternText(layer), PredictFewRows(layer, target),
                  many, code.rows, 32 * compiled.plan.tile_panels[i]);
  if (layer.shape.sparse && many > dense) {
    text += fmt::format("; without zeros {:.0f} µs: larger blocks would pay", dense);
  }
  return text;
}

}  // namespace

CudaCode CompileCudaCode(const Model& model, const std::vector<const CudaTarget*>& targets,
                         int64_t rows, const Progress& progress) {
  CudaCode code = {.rows = rows, .layers = FindCudaLayers(model), .targets = {}};
  if (code.layers.empty()) return code;
  const std::filesystem::path compiler = FindCudaCompiler();
  for (const CudaTarget* target : targets) {
    progress("compiling for GPUs", static_cast<int64_t>(code.targets.size()),
             static_cast<int64_t>(targets.size()));
    const auto start = std::chrono::steady_clock::now();
    CudaPlan plan = PlanCudaCode(code.layers, *target, rows);
    std::string compiled;
    {
      const SignalsDeferred whole;  // the compiler's folder goes first
      compiled = CompileCuda(compiler, plan.source, target->name);
    }
    const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - start;
    code.targets.push_back({std::move(plan), std::move(compiled), taken.count()});
  }
  return code;
}

std::vector<std::string> CudaFileNames(const std::vector<const CudaTarget*>& targets) {
  std::vector<std::string> names;
  for (const CudaTarget* target : targets) names.push_back(CudaPlan{.target = target}.file());
  names.emplace_back(kCudaReportName);
  return names;
}

void Stage(const CudaCode& code, OutputFolder& folder) {
  for (const CudaCode::Compiled& compiled : code.targets) {
    folder.Stage(compiled.plan.file(), compiled.code);
  }
  folder.Stage(kCudaReportName, JsonText(ToJson(code)));
}

std::string CudaText(const CudaCode& code, Detail detail) {
  if (code.layers.empty()) return Line("cuda", "no layer has kernels for GPUs: nothing compiled");
  std::string text;
  for (const CudaCode::Compiled& compiled : code.targets) {
    const CudaTarget& target = *compiled.plan.target;
    text +=
        Line("cuda", fmt::format("{}: {}, {} in {:.1f} s; times predicted for {}", target.name,
                                 Plural(compiled.plan.kernels, "kernel"),
                                 BytesText(compiled.code.size()), compiled.seconds, target.card));
    Tally kinds;
    for (size_t i = 0; i < code.layers.size(); ++i) {
      const std::string line = LayerText(code, compiled, i);
      if (detail == Detail::kEach) {
        text += fmt::format("  {}: {}\n", Printable(code.layers[i].node), line);
      } else {
        kinds.Add(line);
      }
    }
    for (const auto& [line, count] : kinds.rows()) text += fmt::format("  {} × {}\n", count, line);
  }
  return text;
}

Json ToJson(const CudaCode& code) {
  Json targets = Json::array();
  for (const CudaCode::Compiled& compiled : code.targets) {
    const CudaTarget& target = *compiled.plan.target;
    Json layers = Json::array();
    for (size_t i = 0; i < code.layers.size(); ++i) {
      const CudaLayer& layer = code.layers[i];
      const int32_t panels = compiled.plan.tile_panels[i];
      layers.push_back({{"node", layer.node},
                        {"encoding", cuda::EncodingName(layer.shape.encoding)},
                        {"inputs", layer.shape.inputs},
                        {"outputs", layer.shape.outputs},
                        {"pattern", cuda::PatternName(layer.pattern)},
                        {"kept", layer.density()},
                        {"shared_outputs", 32 * layer.shared_panels},
                        {"tile_outputs", 32 * panels},
                        {"few_rows_us", PredictFewRows(layer, target)},
                        {"many_rows_us", ManyRows(layer, target, code.rows)},
                        {"dense_many_rows_us", ManyRows(Dense(layer), target, code.rows)},
                        {"kernels", KernelNames(InstanceOf(layer, panels, target), target)}});
    }
    targets.push_back({{"target", fmt::format("cuda:{}", target.name)},
                       {"card", target.card},
                       {"file", compiled.plan.file()},
                       {"bytes", compiled.code.size()},
                       {"seconds", compiled.seconds},
                       {"layers", std::move(layers)}});
  }
  return {{"rows", code.rows}, {"targets", std::move(targets)}};
}

}  // namespace sparsefuse

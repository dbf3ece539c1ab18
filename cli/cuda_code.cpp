#include "cli/cuda_code.h"

#include <fmt/format.h>

#include <chrono>
#include <optional>

#include "cli/console.h"
#include "cli/signals.h"
#include "cli/system.h"
#include "passes/cuda/compiler.h"
#include "passes/cuda/local_gpus.h"
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

double Predicted(const CudaPlan& plan, size_t layer) {
  for (const TileTime& tile : plan.tiles[layer]) {
    if (tile.panels == plan.tile_panels[layer]) return tile.predicted;
  }
  throw InternalError("a tile that was not to be chosen");
}

double PredictDense(const CudaLayer& layer, const CudaTarget& target, int64_t rows) {
  const CudaLayer dense = Dense(layer);
  return PredictManyRows(dense, target, rows, ChooseTile(dense, target, rows));
}

std::string LayerText(const CudaCode& code, const CudaCode::Compiled& compiled, size_t i) {
  const CudaLayer& layer = code.layers[i];
  const CudaTarget& target = *compiled.plan.target;
  const double many = Predicted(compiled.plan, i);
  const double dense = PredictDense(layer, target, code.rows);
  std::string text =
      fmt::format("{} {}×{}{}, {}: {:.0f} µs at 1 row, {:.0f} µs at {} by tiles of {} outputs",
                  cuda::EncodingName(layer.shape.encoding), layer.shape.inputs, layer.shape.outputs,
                  layer.half ? " (float16)" : "", PatternText(layer), PredictFewRows(layer, target),
                  many, code.rows, kPanelOutputs * compiled.plan.tile_panels[i]);
  if (cuda::SkipsZeros(layer.shape, 1)) {
    text += fmt::format(", {:.0f} % of the inputs skipped at 1 row", 100 * layer.shape.zero_inputs);
  }
  std::vector<std::string> measured;
  for (const TileTime& tile : compiled.plan.tiles[i]) {
    if (!tile.measured) continue;
    measured.push_back(
        fmt::format("{:.0f} µs by tiles of {}", *tile.measured, kPanelOutputs * tile.panels));
  }
  if (!measured.empty()) text += fmt::format("; measured {}", fmt::join(measured, ", "));
  if (layer.shape.sparse && many > dense) {
    text += fmt::format("; without zeros {:.0f} µs: larger blocks would pay", dense);
  }
  return text;
}

std::string TileKey(int32_t panels) { return std::to_string(kPanelOutputs * panels); }

// What was measured, for decisions.
nlohmann::json Record(const std::vector<CudaLayer>& layers, const CudaCode::Compiled& compiled) {
  if (compiled.measured_on.empty()) return {{"why_model", compiled.why_model}};
  nlohmann::json times = nlohmann::json::object();
  for (size_t i = 0; i < layers.size(); ++i) {
    for (const TileTime& tile : compiled.plan.tiles[i]) {
      times[layers[i].node][TileKey(tile.panels)] = tile.measured.value();
    }
  }
  return {{"measured_on", compiled.measured_on}, {"microseconds", std::move(times)}};
}

// The times of such a record.
TileTimer Replay(const nlohmann::json& record, std::string_view target) {
  return [&record, target](const CudaLayer& layer, int32_t panels) {
    const auto found = record.find("microseconds");
    if (found != record.end() && found->is_object() && found->contains(layer.node)) {
      const nlohmann::json& times = (*found)[layer.node];
      const auto time = times.find(TileKey(panels));
      if (time != times.end() && time->is_number()) return time->get<double>();
    }
    throw UserError(
        ErrorCode::kConfig,
        fmt::format("no time of {} by tiles of {} outputs", layer.node, kPanelOutputs * panels),
        "remove \"decisions\" to measure again")
        .At(fmt::format("$.decisions.cuda.{}.microseconds", target));
  };
}

std::string Compile(const std::filesystem::path& compiler, const std::string& source,
                    const CudaTarget& target) {
  const SignalsDeferred whole;  // the compiler's folder goes first
  return CompileCuda(compiler, source, target.name);
}

}  // namespace

CudaCode CompileCudaCode(const Model& model, const CudaSettings& settings,
                         nlohmann::json& decisions, const Progress& progress) {
  CudaCode code = {.rows = settings.rows, .layers = FindCudaLayers(model), .targets = {}};
  if (code.layers.empty()) return code;
  const std::filesystem::path compiler = FindCudaCompiler();
  if (!decisions.is_object()) decisions = nlohmann::json::object();
  std::optional<LocalGpus> gpus;
  for (const CudaTarget* target : settings.targets) {
    progress("compiling for GPUs", static_cast<int64_t>(code.targets.size()),
             static_cast<int64_t>(settings.targets.size()));
    const auto start = std::chrono::steady_clock::now();
    nlohmann::json& record = decisions[std::string(target->name)];
    CudaCode::Compiled compiled;
    std::string all_source, all_code;
    TileTimer timer;
    if (record.is_object()) {
      compiled.measured_on = record.value("measured_on", "");
      if (compiled.measured_on.empty()) {
        compiled.why_model = "\"decisions\" of the configuration say so";
      } else {
        timer = Replay(record, target->name);
      }
    } else if (!settings.measure) {
      compiled.why_model = "measuring is turned off";
    } else {
      if (!gpus) gpus.emplace(settings.library, BuildText());
      if (const LocalGpu* gpu = gpus->Find(target->name)) {
        compiled.measured_on = gpu->name;
        all_source = SourceOfAllTiles(code.layers, *target);
        all_code = Compile(compiler, all_source, *target);
        timer = [&, gpu](const CudaLayer& layer, int32_t panels) {
          return gpus->Time(*gpu, layer, settings.rows, panels, all_code);
        };
      } else {
        compiled.why_model = gpus->WhyNot(target->name);
      }
    }
    compiled.plan = PlanCudaCode(code.layers, *target, settings.rows, timer);
    compiled.code = compiled.plan.source == all_source
                        ? std::move(all_code)
                        : Compile(compiler, compiled.plan.source, *target);
    const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - start;
    compiled.seconds = taken.count();
    if (!record.is_object()) record = Record(code.layers, compiled);
    code.targets.push_back(std::move(compiled));
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
    text +=
        compiled.measured_on.empty()
            ? fmt::format("  tiles chosen by the model: {}\n", Printable(compiled.why_model))
            : fmt::format("  tiles chosen by measurement on {}\n", Printable(compiled.measured_on));
    Tally kinds;
    for (size_t i = 0; i < code.layers.size(); ++i) {
      const std::string line = LayerText(code, compiled, i);
      if (detail == Detail::kEach) {
        text += fmt::format("  {}: {}\n", code.layers[i].node, line);
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
      Json tiles = Json::array();
      for (const TileTime& tile : compiled.plan.tiles[i]) {
        tiles.push_back(
            {{"outputs", kPanelOutputs * tile.panels}, {"predicted_us", tile.predicted}});
        if (tile.measured) tiles.back()["measured_us"] = *tile.measured;
      }
      layers.push_back({{"node", layer.node},
                        {"encoding", cuda::EncodingName(layer.shape.encoding)},
                        {"inputs", layer.shape.inputs},
                        {"outputs", layer.shape.outputs},
                        {"pattern", cuda::PatternName(layer.pattern)},
                        {"kept", layer.density()},
                        {"zero_inputs", layer.shape.zero_inputs},
                        {"shared_outputs", 32 * layer.shared_panels},
                        {"tile_outputs", kPanelOutputs * panels},
                        {"tiles", std::move(tiles)},
                        {"few_rows_us", PredictFewRows(layer, target)},
                        {"many_rows_us", Predicted(compiled.plan, i)},
                        {"dense_many_rows_us", PredictDense(layer, target, code.rows)},
                        {"kernels", KernelNames(InstanceOf(layer, panels, target), target)}});
    }
    const bool by_model = compiled.measured_on.empty();
    targets.push_back({{"target", fmt::format("cuda:{}", target.name)},
                       {"card", target.card},
                       {"chosen_by", by_model ? "model" : "measurement"},
                       {by_model ? "reason" : "measured_on",
                        by_model ? compiled.why_model : compiled.measured_on},
                       {"file", compiled.plan.file()},
                       {"bytes", compiled.code.size()},
                       {"seconds", compiled.seconds},
                       {"layers", std::move(layers)}});
  }
  return {{"rows", code.rows}, {"targets", std::move(targets)}};
}

}  // namespace sparsefuse

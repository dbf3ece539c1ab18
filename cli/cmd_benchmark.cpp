// benchmark: latency of models against each other, interleaved in one process.

#include <fmt/format.h>

#include <algorithm>
#include <memory>

#include "cli/commands.h"
#include "cli/console.h"
#include "cli/latency.h"
#include "cli/operator_library.h"
#include "cli/system.h"
#include "cli/text.h"
#include "onnx_io/reader.h"
#include "passes/framework/probes.h"

namespace sparsefuse {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

struct Contestant {
  fs::path path;
  Model model;
  std::unique_ptr<Session> session;
  fs::path operator_library;  // that it runs with; empty: none
};

Contestant Open(const fs::path& path, const BenchmarkOptions& options) {
  Contestant contestant{path, ReadModel(path), nullptr, {}};
  contestant.operator_library = OperatorLibraryFor(contestant.model, options.operator_library);
  const SessionOptions session = {.threads = static_cast<int>(options.threads),
                                  .operator_library = contestant.operator_library,
                                  .device = options.device};
  try {
    contestant.session = std::make_unique<Session>(path, session);
  } catch (UserError& error) {
    throw error.InFile(path.string());
  }
  return contestant;
}

// The session's inputs with the dims that the user gave.
std::vector<Port> ShapedInputs(const Session& session, const BenchmarkOptions& options) {
  std::vector<Port> inputs = session.inputs();
  for (const auto& [name, dims] : options.shapes) {
    const auto port = std::find_if(inputs.begin(), inputs.end(),
                                   [&, &wanted = name](const Port& p) { return p.name == wanted; });
    if (port == inputs.end()) {
      std::vector<std::string> names;
      for (const Port& input : inputs) names.push_back(input.name);
      const std::string nearest = Nearest(name, names);
      throw UserError(ErrorCode::kUsage,
                      fmt::format("the model has no input \"{}\"", Printable(name)),
                      nearest.empty() ? "" : fmt::format("did you mean \"{}\"?", nearest))
          .At("--shape");
    }
    port->type.has_shape = true;
    port->type.dims.assign(dims.begin(), dims.end());
  }
  return inputs;
}

// True if every input's first axis is open: then the batch size is the user's.
bool TakesAnyBatch(const std::vector<Port>& inputs) {
  return std::all_of(inputs.begin(), inputs.end(), [](const Port& port) {
    return !port.type.dims.empty() && port.type.dims[0].index() == 1;
  });
}

std::vector<BatchLatency> TimeProbes(std::span<const Session* const> sessions,
                                     const BenchmarkOptions& options) {
  const std::vector<Port> inputs = ShapedInputs(*sessions[0], options);
  std::vector<int64_t> batches =
      options.batches.empty() ? std::vector<int64_t>{1, 8} : options.batches;
  // 0 stands for whatever the model and --shape fix.
  if (!TakesAnyBatch(inputs)) batches = {0};
  std::vector<BatchLatency> result;
  for (const int64_t batch : batches) {
    const Feeds feeds = MakeProbe(inputs, 0, {.first = std::max<int64_t>(1, batch), .other = 64});
    result.push_back({batch, TimeInterleaved(sessions, feeds)});
  }
  return result;
}

std::vector<BatchLatency> Time(const std::vector<Contestant>& models,
                               const BenchmarkOptions& options) {
  std::vector<const Session*> sessions;
  for (const Contestant& model : models) sessions.push_back(model.session.get());
  if (options.data.empty()) return TimeProbes(sessions, options);
  const Dataset data = Dataset::Load(options.data, models.front().model);
  return TimeBatches(sessions, data, options.batches);
}

// Of all models together: one library counts for them all.
GateCounts CountGates(const std::vector<Contestant>& models) {
  for (const Contestant& model : models) {
    if (!model.operator_library.empty()) return ReadGateCounts(model.operator_library);
  }
  return {};
}

void PrintTable(const std::vector<Contestant>& models, const std::vector<BatchLatency>& latencies,
                const BenchmarkOptions& options) {
  std::string text =
      Line("benchmark", fmt::format("{}{} · ONNX Runtime {} · {}",
                                    options.device == Device::kCuda ? "CUDA provider · " : "",
                                    Plural(options.threads, "thread"), EngineVersion(), CpuText()));
  text += Line("data", options.data.empty() ? "made-up inputs (--data or --shape for real ones)"
                                            : Printable(options.data.string()));
  for (const BatchLatency& latency : latencies) {
    text += fmt::format("{:<10}{:>10} {:>10} {:>10}  speed-up  model\n",
                        latency.batch > 0 ? fmt::format("batch {}", latency.batch) : "as given",
                        "min ms", "median ms", "p95 ms");
    for (size_t i = 0; i < models.size(); ++i) {
      const Latency& l = latency.models[i];
      text += fmt::format("{:<10}{:>10.3f} {:>10.3f} {:>10.3f}  ×{:<7.2f}  {}\n", "", l.min_ms,
                          l.median_ms, l.p95_ms, latency.Speedup(i),
                          Printable(models[i].path.string()));
    }
  }
  const GateCounts gates = CountGates(models);
  if (gates.rows > 0) {
    text += Line(
        "gate", fmt::format("{:.1f} % of {} rows of nested layers read in 4 bits",
                            100 * static_cast<double>(gates.easy) / static_cast<double>(gates.rows),
                            gates.rows));
  }
  Print(text);
}

Json AsJson(const std::vector<Contestant>& models, const std::vector<BatchLatency>& latencies,
            const BenchmarkOptions& options) {
  Json json = {{"tool", DescribeTool()},
               {"device", options.device == Device::kCuda ? "cuda" : "cpu"},
               {"threads", options.threads},
               {"data", options.data.string()},
               {"batches", Json::array()}};
  for (const BatchLatency& latency : latencies) {
    Json batch = {{"models", Json::array()}};
    batch["batch"] = latency.batch > 0 ? Json(latency.batch) : Json();
    for (size_t i = 0; i < models.size(); ++i) {
      Json model = {{"model", models[i].path.string()}};
      model.update(ToJson(latency.models[i]));
      model["speedup"] = latency.Speedup(i);
      model["ratio"] = 1 / latency.Speedup(i);
      if (latency.batch > 0) {
        model["samples_per_second"] =
            1000 * static_cast<double>(latency.batch) / latency.models[i].median_ms;
      }
      batch["models"].push_back(std::move(model));
    }
    json["batches"].push_back(std::move(batch));
  }
  if (const GateCounts gates = CountGates(models); gates.rows > 0) {
    json["gate"] = {{"rows", gates.rows}, {"rows_in_4_bits", gates.easy}};
  }
  return json;
}

}  // namespace

void Run(const BenchmarkOptions& options) {
  if (!options.data.empty() && !options.shapes.empty()) {
    throw UserError(ErrorCode::kUsage, "--shape is for made-up inputs: it excludes --data");
  }
  std::vector<Contestant> models;
  models.push_back(Open(options.model, options));
  for (const fs::path& path : options.against) models.push_back(Open(path, options));
  const std::vector<BatchLatency> latencies = Time(models, options);
  if (options.common.format == Format::kJson) return PrintJson(AsJson(models, latencies, options));
  PrintTable(models, latencies, options);
}

}  // namespace sparsefuse

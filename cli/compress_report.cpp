#include "cli/compress_report.h"

#include "cli/system.h"

namespace sparsefuse {
namespace {

using Json = nlohmann::ordered_json;

constexpr double kNoise = 0.03;  // relative; smaller differences of speed are not told apart

double SizeRatio(const CompressReport& report) {
  return static_cast<double>(report.output_bytes) / static_cast<double>(report.model_bytes);
}

double EffectiveBits(const CompressReport& report) {
  return 8.0 * static_cast<double>(report.output_bytes) /
         static_cast<double>(std::max<int64_t>(1, report.inventory.parameters));
}

std::string DataText(const CompressReport& report) {
  if (report.calibration_samples == 0 && report.evaluation_samples == 0) return "none";
  std::string text = "no calibration samples";
  if (report.calibration_samples > 0) {
    const Splits& splits = report.splits;
    text = fmt::format("{} (fit {}, select {}, audit {})",
                       Plural(report.calibration_samples, "sample"), splits.fit.size(),
                       splits.select.size(), splits.audit.size());
  }
  if (report.evaluation_samples > 0) {
    text += fmt::format(" · evaluation {}{}", report.evaluation_samples,
                        report.evaluation_labelled ? " labelled" : " without labels");
  }
  return text;
}

std::string WeightsText(const Inventory& inventory) {
  constexpr std::string_view kNames[] = {"linear", "convolution", "embedding"};
  std::string text;
  for (size_t kind = 0; kind < std::size(kNames); ++kind) {
    const WeightGroup& group = inventory.weights[kind];
    if (group.tensors == 0) continue;
    text += fmt::format("{}{} {}", text.empty() ? " · " : ", ", group.tensors, kNames[kind]);
  }
  return text.empty() ? "" : text + " weights";
}

std::string VerifiedText(const CompressReport& report) {
  const Verification& v = report.verification;
  if (v.basis == Basis::kNothing) return "structure only: " + Printable(v.reason);
  std::string text =
      v.basis == Basis::kData ? "full" : "structure only (" + Printable(v.reason) + ")";
  text += ": reloaded, run";
  if (report.bodies) text += " with and without the operator library";
  if (v.basis != Basis::kRunning) text += fmt::format("; mean cosine {:.5f}", v.cosine);
  return text;
}

std::string LatencyText(const CompressReport& report) {
  if (report.latencies.empty()) return "not measured: " + report.no_latency_because;
  std::string text;
  for (const BatchLatency& latency : report.latencies) {
    const double speedup = latency.Speedup(1);
    const std::string_view verdict = speedup > 1 + kNoise   ? " faster"
                                     : speedup < 1 - kNoise ? " (slower)"
                                                            : " (equal within noise)";
    text += fmt::format("{}×{:.2f}{} at batch {}", text.empty() ? "" : ", ", speedup, verdict,
                        latency.batch);
  }
  return text + " (than the original, 1 thread)";
}

Json ToJson(const Finding& finding) {
  Json json = {{"subject", finding.subject}, {"op", finding.op}};
  if (finding.reason.empty()) {
    json["action"] = finding.action;
    if (finding.error >= 0) json["error"] = finding.error;
  } else {
    json["reason"] = finding.reason;
  }
  return json;
}

Json ToJson(const PassReport& pass) {
  Json json = {{"name", pass.name},
               {"changed", pass.stats.changed},
               {"seconds", pass.seconds},
               {"verify_seconds", pass.verify_seconds},
               {"peak_bytes", pass.peak_bytes},
               {"weight_bytes_before", pass.weight_bytes_before},
               {"weight_bytes_after", pass.weight_bytes_after},
               {"nodes_added", pass.stats.nodes_added},
               {"nodes_removed", pass.stats.nodes_removed},
               {"tensors_rewritten", pass.stats.tensors_rewritten},
               {"done", Json::array()},
               {"skipped", Json::array()}};
  for (const Finding& finding : pass.stats.findings) {
    json[finding.reason.empty() ? "done" : "skipped"].push_back(ToJson(finding));
  }
  return json;
}

Json ToJson(const Verification& v) {
  return {{"level", v.Level()},
          {"reason", v.reason},
          {"max_error", v.max_error},
          {"mean_cosine", v.cosine}};
}

}  // namespace

std::string IntroductionText(const CompressReport& report) {
  return Line("model",
              fmt::format("{} · {} parameters · {} · opset {}{}", Printable(report.model),
                          CountText(report.inventory.parameters), BytesText(report.model_bytes),
                          report.opset, WeightsText(report.inventory))) +
         Line("data", DataText(report));
}

std::string PassText(const PassReport& pass, Detail detail) {
  const FindingLines lines = Summarize(pass.stats.findings, detail);
  std::string text;
  const auto add = [&](const std::string& line) {
    text += text.empty() ? fmt::format("  {:<15} {}\n", pass.name, line)
                         : fmt::format("  {:<15} {}\n", "", line);
  };
  for (const std::string& line : lines.done) add(line);
  if (lines.done.empty()) add(pass.stats.changed ? "changed" : "nothing to do");
  for (const std::string& line : lines.skipped) add("skipped " + line);
  return text;
}

std::string ResultText(const CompressReport& report, const WantedMetrics& wanted) {
  std::string text = Line("result", Printable(report.output));
  const auto add = [&](std::string_view line) { text += fmt::format("            {}\n", line); };
  if (!report.changed) add("kept fp32  " + Printable(report.kept_because));
  add(fmt::format(
      "{:<11}{:<20} ({:.0f} % of the file, {:.1f} effective bits)", "size",
      fmt::format("{} → {}", BytesText(report.model_bytes), BytesText(report.output_bytes)),
      100 * SizeRatio(report), EffectiveBits(report)));
  if (report.scores) {
    for (const std::string& line : ScoreLines(*report.scores, wanted)) add(line);
  }
  add("latency    " + LatencyText(report));
  add("verified   " + VerifiedText(report));
  add(fmt::format("{:<11}{:.1f} s, at most {} of memory", "cost", report.seconds,
                  BytesText(static_cast<uint64_t>(report.peak_bytes))));
  for (const GoalResult& goal : report.goals) {
    add(fmt::format("{:<11}{} {:.4g}, at most {:.4g} wanted: {}", "goal", goal.name, goal.reached,
                    goal.wanted, goal.met() ? "met" : "missed"));
  }
  return text;
}

Json ToJson(const CompressReport& report, const WantedMetrics& wanted) {
  Json json = {{"tool", DescribeTool()},
               {"changed", report.changed},
               {"model",
                {{"bytes", report.model_bytes},
                 {"parameters", report.inventory.parameters},
                 {"opset", report.opset}}},
               {"data",
                {{"calibration_samples", report.calibration_samples},
                 {"fit", report.splits.fit.size()},
                 {"select", report.splits.select.size()},
                 {"audit", report.splits.audit.size()},
                 {"evaluation_samples", report.evaluation_samples},
                 {"evaluation_labelled", report.evaluation_labelled}}},
               {"passes", Json::array()}};
  if (!report.changed) json["kept_fp32"] = report.kept_because;
  for (const PassReport& pass : report.passes) json["passes"].push_back(ToJson(pass));
  Json& result = json["result"];
  result = {{"bytes", report.output_bytes},
            {"size_ratio", SizeRatio(report)},
            {"effective_bits", EffectiveBits(report)},
            {"custom_operators", report.custom_operators},
            {"verification", ToJson(report.verification)}};
  if (report.bodies) result["verification"]["function_bodies"] = ToJson(*report.bodies);
  if (report.scores) result["scores"] = ToJson(*report.scores, wanted);
  if (report.latencies.empty()) result["latency_not_measured"] = report.no_latency_because;
  for (const BatchLatency& latency : report.latencies) {
    result["latency"].push_back({{"batch", latency.batch},
                                 {"threads", 1},
                                 {"original", ToJson(latency.models[0])},
                                 {"result", ToJson(latency.models[1])},
                                 {"speedup", latency.Speedup(1)},
                                 {"ratio", 1 / latency.Speedup(1)}});
  }
  json["goals"] = Json::array();
  for (const GoalResult& goal : report.goals) {
    json["goals"].push_back({{"name", goal.name},
                             {"wanted", goal.wanted},
                             {"reached", goal.reached},
                             {"met", goal.met()}});
  }
  json["seconds"] = report.seconds;
  json["peak_bytes"] = report.peak_bytes;
  return json;
}

}  // namespace sparsefuse

#include "passes/quantize/variants.h"

#include <algorithm>
#include <cmath>

#include "passes/engine/engine.h"

namespace sparsefuse {
namespace {

Feeds FirstSamples(const Dataset& data, int64_t batch) {
  std::vector<int64_t> samples;
  for (int64_t i = 0; i < batch; ++i) samples.push_back(i % data.size());
  return data.Gather(samples);
}

bool IsFasterEverywhere(const VariantTiming& timing) {
  return timing.geometric_mean >= kSmallestSpeedup &&
         std::all_of(timing.ratio_per_batch.begin(), timing.ratio_per_batch.end(),
                     [](double ratio) { return ratio >= kNotSlower; });
}

}  // namespace

std::vector<VariantTiming> TimeVariants(
    const Model& baseline, std::span<const std::pair<std::string, const Model*>> variants,
    const Dataset& data, std::span<const int64_t> batches, const Context& context) {
  const SessionOptions options{.threads = 1, .operator_library = context.operator_library};
  std::vector<Session> sessions;
  sessions.reserve(variants.size() + 1);
  sessions.emplace_back(baseline, options);
  for (const auto& [name, model] : variants) sessions.emplace_back(*model, options);
  std::vector<const Session*> pointers;
  for (const Session& session : sessions) pointers.push_back(&session);

  std::vector<VariantTiming> timings(variants.size());
  for (size_t b = 0; b < batches.size(); ++b) {
    context.progress("timing", static_cast<int64_t>(b), static_cast<int64_t>(batches.size()));
    const std::vector<Latency> latencies =
        TimeInterleaved(pointers, FirstSamples(data, batches[b]));
    for (size_t i = 0; i < timings.size(); ++i) {
      timings[i].ratio_per_batch.push_back(latencies[0].min_ms / latencies[i + 1].min_ms);
    }
  }
  for (size_t i = 0; i < timings.size(); ++i) {
    timings[i].name = variants[i].first;
    double logs = 0;
    for (double ratio : timings[i].ratio_per_batch) logs += std::log(ratio);
    timings[i].geometric_mean =
        std::exp(logs / static_cast<double>(std::max<size_t>(1, batches.size())));
  }
  return timings;
}

std::vector<int64_t> BatchesToTime(const Dataset& data) {
  if (data.fixed_batch() > 0) return {data.fixed_batch()};
  return {1, 8};
}

std::optional<size_t> ChooseVariant(std::span<const VariantTiming> timings,
                                    std::span<const uint64_t> bytes) {
  double fastest = 0;
  for (const VariantTiming& timing : timings) {
    if (IsFasterEverywhere(timing)) fastest = std::max(fastest, timing.geometric_mean);
  }
  std::optional<size_t> best;
  for (size_t i = 0; i < timings.size(); ++i) {
    if (!IsFasterEverywhere(timings[i]) || timings[i].geometric_mean < kSameSpeed * fastest) {
      continue;
    }
    if (!best || bytes[i] < bytes[*best] ||
        (bytes[i] == bytes[*best] && timings[i].geometric_mean > timings[*best].geometric_mean)) {
      best = i;
    }
  }
  return best;
}

}  // namespace sparsefuse

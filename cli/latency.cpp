#include "cli/latency.h"

namespace sparsefuse {

std::vector<BatchLatency> TimeBatches(std::span<const Session* const> sessions, const Dataset& data,
                                      std::vector<int64_t> batches, const TimingOptions& options) {
  if (data.fixed_batch() > 0) {
    batches = {data.fixed_batch()};
  } else if (batches.empty()) {
    batches = {1, 8};
  }
  std::vector<BatchLatency> result;
  for (const int64_t batch : batches) {
    std::vector<int64_t> samples;
    for (int64_t i = 0; i < batch; ++i) samples.push_back(i % data.size());
    result.push_back({batch, TimeInterleaved(sessions, data.Gather(samples), options)});
  }
  return result;
}

nlohmann::ordered_json ToJson(const Latency& latency) {
  return {{"min_ms", latency.min_ms},
          {"median_ms", latency.median_ms},
          {"p95_ms", latency.p95_ms},
          {"runs", latency.runs}};
}

}  // namespace sparsefuse

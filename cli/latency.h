// Timing of several models on the same inputs.

#ifndef SPARSEFUSE_CLI_LATENCY_H_
#define SPARSEFUSE_CLI_LATENCY_H_

#include <cstdint>
#include <nlohmann/json.hpp>
#include <span>
#include <vector>

#include "passes/engine/engine.h"

namespace sparsefuse {

struct BatchLatency {
  int64_t batch;
  std::vector<Latency> models;  // in the order of the sessions

  // Median of model 0 over that of model i: > 1 is faster than model 0.
  double Speedup(size_t i) const { return models[0].median_ms / models[i].median_ms; }
};

// Interleaved, each batch by itself. Samples of `data` in its order, repeated where it has fewer. A
// data set with a fixed batch is timed at that alone; `batches` empty: 1 and 8.
std::vector<BatchLatency> TimeBatches(std::span<const Session* const> sessions, const Dataset& data,
                                      std::vector<int64_t> batches,
                                      const TimingOptions& options = {});

// {min_ms, median_ms, p95_ms, runs}
nlohmann::ordered_json ToJson(const Latency& latency);

}  // namespace sparsefuse

#endif  // SPARSEFUSE_CLI_LATENCY_H_

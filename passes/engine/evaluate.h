// A model on a data set: its task metric, and its distance to another model.

#ifndef SPARSEFUSE_PASSES_ENGINE_EVALUATE_H_
#define SPARSEFUSE_PASSES_ENGINE_EVALUATE_H_

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "passes/data/dataset.h"
#include "passes/data/metrics.h"
#include "passes/engine/engine.h"

namespace sparsefuse {

struct EvaluateOptions {
  // Samples a run; 0: as many as keep the outputs under 64 MiB, at most 32. The data's fixed batch
  // wins.
  int64_t batch = 0;
  std::function<void(int64_t done, int64_t total)> progress = [](int64_t, int64_t) {};  // samples
};

// The metric is taken from the first floating output whose shape fits the labels. kNone without
// labels or such an output; then nothing is run. UserErrors of Session::Run, with the samples.
TaskScore EvaluateModel(const Session& session, const Dataset& data,
                        std::span<const int64_t> samples, const EvaluateOptions& options = {});

struct OutputDistances {
  std::string name;
  Distances distances;
};

struct Comparison {
  TaskScore reference_score, candidate_score;  // as EvaluateModel, same output for both
  std::vector<OutputDistances> outputs;        // every tensor output of the reference, in its order
  // In `outputs`: the one that the metric is taken from, else the first floating one, else the
  // first.
  size_t main_output = 0;

  const Distances& main() const { return outputs.at(main_output).distances; }
};

// Both models on the same batches; `samples` not empty. The candidate's outputs are found by name.
// Kinds are decided by the reference's first batch. An output whose first axis is not the samples
// of the batch counts as one sample's. E_VERIFY if the candidate lacks an output of the reference,
// or if the metric's output has another shape.
Comparison CompareModels(const Session& reference, const Session& candidate, const Dataset& data,
                         std::span<const int64_t> samples, const EvaluateOptions& options = {});

}  // namespace sparsefuse

#endif  // SPARSEFUSE_PASSES_ENGINE_EVALUATE_H_

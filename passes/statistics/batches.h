// Feeds in batches, and models run over them: the same bytes for any number of threads.
//
// ONNX Runtime's products round differently when they are split over threads. So each batch runs on
// one thread, as many batches at a time as there are threads, and results are taken in order.

#ifndef SPARSEFUSE_PASSES_STATISTICS_BATCHES_H_
#define SPARSEFUSE_PASSES_STATISTICS_BATCHES_H_

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "passes/engine/engine.h"
#include "passes/framework/context.h"

namespace sparsefuse {

// Each entry feeds one run. Whoever walks through a model in segments adds the tensors of a cut.
using Batches = std::vector<Feeds>;

// `samples` of `data`, at most `batch` a run; the data's fixed batch wins: then samples that do not
// fill the last one are left out, or, if there is no other, the last of them is repeated.
Batches MakeBatches(const Dataset& data, std::span<const int64_t> samples, int64_t batch);

// A model that is run over batches, and what is wanted of it.
struct BatchRun {
  const Model& model;
  const Batches& batches;
  std::vector<std::string> outputs;  // any values of the main graph
};

// Runs all of `runs` (which have as many batches each) on each batch: compute(i, outputs of each
// run), several batches at the same time, so what it finds it keeps to itself; then merge(i) for
// one batch after the other, in order. Batches between the two differ in i modulo context.threads.
// The error thrown is that of the lowest batch.
using ComputeBatch = std::function<void(size_t batch, std::vector<std::vector<Tensor>> outputs)>;
using MergeBatch = std::function<void(size_t batch)>;
void RunBatches(std::span<const BatchRun> runs, const Context& context, const ComputeBatch& compute,
                const MergeBatch& merge);

// Keeps all outputs of all batches: [batch][output].
std::vector<std::vector<Tensor>> RunBatches(const BatchRun& run, const Context& context);

// The graph input that tells padding (0) from tokens (1), if there is one: of shape [batch,
// tokens], only 0 and 1 in all batches, a 1 in every sample and a 0 somewhere; and in the graph
// elementwise and shape operators alone lead from it to a Softmax or an attention operator. (Token
// types are 0 and 1 as well, but they are indices of a Gather.) Names do not matter.
std::optional<std::string> FindPaddingMask(const Model& model, const Batches& batches);

// Which rows count: `dims` are those of a tensor but for its features, in the order of its rows.
// [batch, tokens, …] and [batch · tokens] follow the mask, anything else (pooled, no tokens) is
// kept whole: empty result. `mask`: as above, or none.
std::vector<bool> KeptRows(const std::optional<std::string>& mask, const Feeds& feeds,
                           std::span<const int64_t> dims);

}  // namespace sparsefuse

#endif  // SPARSEFUSE_PASSES_STATISTICS_BATCHES_H_

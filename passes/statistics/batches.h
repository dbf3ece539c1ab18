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

// Calls compute(i, outputs) for each batch, several at the same time; what it keeps of batch i it
// keeps to itself until merge(i) is called, for one batch at a time and in order.
// At most context.threads batches are held between the two. The first error of the lowest batch is
// thrown.
using ComputeBatch = std::function<void(size_t batch, std::vector<Tensor> outputs)>;
using MergeBatch = std::function<void(size_t batch)>;
void RunBatches(const Model& model, const Batches& batches, std::span<const std::string> outputs,
                const Context& context, const ComputeBatch& compute, const MergeBatch& merge);

// All outputs of all batches: [batch][output].
std::vector<std::vector<Tensor>> RunBatches(const Model& model, const Batches& batches,
                                            std::span<const std::string> outputs,
                                            const Context& context);

// The graph input that tells padding (0) from tokens (1), if there is one: of shape [batch,
// tokens], only 0 and 1 in all batches, a 1 in every sample, a 0 somewhere, and in the graph a way
// of elementwise and shape operators from it to a Softmax, but none to an index of a Gather (as
// token types have, which are 0 and 1 as well). Names do not matter.
std::optional<std::string> FindPaddingMask(const Model& model, const Batches& batches);

// Which rows count: `dims` are those of a tensor but for its features, in the order of its rows.
// [batch, tokens, …] and [batch · tokens] follow the mask, anything else (pooled, no tokens) is
// kept whole: empty result. `mask`: as above, or none.
std::vector<bool> KeptRows(const std::optional<std::string>& mask, const Feeds& feeds,
                           std::span<const int64_t> dims);

}  // namespace sparsefuse

#endif  // SPARSEFUSE_PASSES_STATISTICS_BATCHES_H_

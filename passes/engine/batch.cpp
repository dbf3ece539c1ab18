#include <algorithm>

#include "passes/engine/engine.h"

namespace sparsefuse {
namespace {

// The first `count` rows of an output of `batch` rows; anything else as it is.
Tensor FirstRows(const Tensor& output, int64_t batch, int64_t count) {
  if (output.rank() == 0 || output.dims()[0] != batch || DTypeBits(output.dtype()) < 8) {
    return output;
  }
  Dims dims = output.dims();
  dims[0] = count;
  const size_t row = output.bytes().size() / static_cast<size_t>(batch);
  return Tensor::FromBytes(output.dtype(), std::move(dims),
                           output.bytes().first(row * static_cast<size_t>(count)));
}

std::string SamplesText(std::span<const int64_t> samples) {
  if (samples.size() == 1) return fmt::format("sample {}", samples[0]);
  return fmt::format("samples {} to {} ({} of them)", samples.front(), samples.back(),
                     samples.size());
}

}  // namespace

void ForEachBatch(std::span<const Session* const> sessions, const Dataset& data,
                  std::span<const int64_t> samples, int64_t batch,
                  std::span<const std::string> outputs, const VisitBatch& visit) {
  const int64_t fixed = data.fixed_batch();
  const auto step = static_cast<size_t>(fixed > 0 ? fixed : std::max<int64_t>(1, batch));
  for (size_t at = 0; at < samples.size(); at += step) {
    const std::span<const int64_t> own = samples.subspan(at, std::min(step, samples.size() - at));
    std::vector<int64_t> filled(own.begin(), own.end());
    if (fixed > 0) filled.resize(step, own.back());
    std::vector<std::vector<Tensor>> results;
    try {
      const Feeds feeds = data.Gather(filled);
      for (const Session* session : sessions) results.push_back(session->Run(feeds, outputs));
    } catch (UserError& error) {
      throw error.At(SamplesText(own));
    }
    if (filled.size() > own.size()) {
      for (std::vector<Tensor>& tensors : results) {
        for (Tensor& tensor : tensors) {
          tensor = FirstRows(tensor, fixed, static_cast<int64_t>(own.size()));
        }
      }
    }
    visit(results, own);
  }
}

void ForEachBatch(
    const Session& session, const Dataset& data, std::span<const int64_t> samples, int64_t batch,
    std::span<const std::string> outputs,
    const std::function<void(std::span<const Tensor>, std::span<const int64_t>)>& visit) {
  const Session* const sessions[] = {&session};
  ForEachBatch(sessions, data, samples, batch, outputs,
               [&](std::span<const std::vector<Tensor>> results, std::span<const int64_t> own) {
                 visit(results[0], own);
               });
}

}  // namespace sparsefuse

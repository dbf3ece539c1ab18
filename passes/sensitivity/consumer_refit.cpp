#include "passes/sensitivity/consumer_refit.h"

#include <algorithm>
#include <optional>
#include <utility>

namespace sparsefuse {

using Eigen::Index;

ObsModule CollectObs(Evidence& evidence, const Prunable& module) {
  ObsModule obs;
  for (const Consumer& consumer : module.consumers) {
    Evidence::Metric metric = evidence.MetricOf(consumer.matrix);
    const RowStatistics& rows = evidence.Input(consumer.matrix);
    obs.consumers.push_back({Weight(consumer.matrix), std::move(metric.gram),
                             std::move(metric.output), consumer.unit_of});
    obs.means.push_back(rows.mean);
    obs.rows.push_back(rows.count);
  }
  return obs;
}

Refit RefitConsumer(const Prunable& prunable, const ObsModule& obs, size_t index,
                    std::span<const int64_t> kept) {
  const ObsConsumer& consumer = obs.consumers[index];
  Refit refit{ObsRefit(consumer, kept), Bias(prunable.consumers[index].matrix)};
  refit.bias += (consumer.weight - refit.weight).transpose() * obs.means[index];
  return refit;
}

Refit ZeroConsumer(const Prunable& prunable, size_t index, std::span<const int64_t> kept) {
  const Consumer& consumer = prunable.consumers[index];
  Refit refit{Weight(consumer.matrix), Bias(consumer.matrix)};
  for (size_t i = 0; i < consumer.unit_of.size(); ++i) {
    const int64_t unit = consumer.unit_of[i];
    if (unit >= 0 && !std::binary_search(kept.begin(), kept.end(), unit)) {
      refit.weight.row(static_cast<Index>(i)).setZero();
    }
  }
  return refit;
}

void SetRefit(Model& model, const Prunable& prunable, size_t index, const Refit& refit) {
  SetWeight(model, SameMatrix(model, prunable.consumers[index].matrix), refit.weight, refit.bias);
}

}  // namespace sparsefuse

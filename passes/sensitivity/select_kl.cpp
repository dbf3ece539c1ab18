#include "passes/sensitivity/select_kl.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "passes/data/metrics.h"

namespace sparsefuse {
namespace {

constexpr int64_t kMostSamples = 64;
constexpr int64_t kMostAnswerBytes = int64_t{256} << 20;
constexpr int64_t kKlBatch = 8;

}  // namespace

SelectKl::SelectKl(const Model& teacher, const Context& context) : context_(context) {
  std::vector<int64_t> samples = context.splits.select;
  output_ = FindAnswerOutput(teacher, context, samples);
  const int64_t bytes = std::max<int64_t>(4, 4 * output_.elements_per_sample());
  const int64_t most = std::max(std::min(kMostAnswerBytes / bytes, kMostSamples), output_.batch);
  samples.resize(std::min(samples.size(), static_cast<size_t>(most)));
  batches_ = MakeBatches(*context.calibration, samples, kKlBatch);
  for (std::vector<Tensor>& results : RunBatches({teacher, batches_, {output_.name}}, context)) {
    answers_.push_back(std::move(results[0]));
  }
}

double SelectKl::Of(const Model& student) const {
  std::vector<Distances> found(batches_.size());
  Distances all;
  const BatchRun run{student, batches_, {output_.name}};
  RunBatches(
      {&run, 1}, context_,
      [&](size_t b, std::vector<std::vector<Tensor>> results) {
        found[b].Add(answers_[b], results[0][0], output_.kind);
      },
      [&](size_t b) {
        all.answers += found[b].answers;
        all.kl_sum += found[b].kl_sum;
        all.error_energy += found[b].error_energy;
        all.reference_energy += found[b].reference_energy;
        all.non_finite += found[b].non_finite;
        all.mismatched += found[b].mismatched;
      });
  if (all.non_finite > 0 || all.mismatched > 0) return std::numeric_limits<double>::infinity();
  if (const double kl = all.Kl(); !std::isnan(kl)) return kl;
  return 0.5 * all.error_energy / std::max(all.reference_energy, 1e-30);
}

}  // namespace sparsefuse

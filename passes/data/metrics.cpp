#include "passes/data/metrics.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <span>
#include <string_view>

#include "passes/data/answers.h"
#include "passes/data/random.h"

namespace sparsefuse {
namespace {

constexpr double kUndefined = std::numeric_limits<double>::quiet_NaN();
constexpr int64_t kIgnored = -100;  // the label that PyTorch's cross entropy skips by default
constexpr size_t kMaxDrawnSamples = 200'000'000;  // bounds the bootstrap to seconds

[[noreturn]] void FailLabel(int64_t label, size_t sample, int64_t classes) {
  throw UserError(ErrorCode::kData,
                  fmt::format("label {} of sample {} is no class: the model has {}, from 0", label,
                              sample, classes));
}

// The score resampled: sample draws[i] in place of sample i.
double Resampled(const TaskScore& score, std::span<const size_t> draws) {
  TaskScore total;
  total.metric = score.metric;
  for (const size_t sample : draws) {
    total.sum += score.per_sample[sample];
    total.count += score.per_sample_count[sample];
  }
  return total.Value();
}

// Of sorted values, q in 0…1, linear between neighbours.
double Quantile(std::span<const double> sorted, double q) {
  const double at = q * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<size_t>(at);
  const size_t above = std::min(below + 1, sorted.size() - 1);
  return std::lerp(sorted[below], sorted[above], at - static_cast<double>(below));
}

}  // namespace

OutputKind DetectOutputKind(const Tensor& output) {
  const int64_t classes = Classes(Squeezed(output.dims()));
  if (!IsFloating(output.dtype()) || classes < 2 || output.size() == 0) return OutputKind::kLogits;
  const Floats values(output);
  for (int64_t row = 0; row < output.size() / classes; ++row) {
    double sum = 0;
    for (const float x : values.Row(row, classes)) {
      if (!(x >= 0)) return OutputKind::kLogits;
      sum += x;
    }
    if (!(std::abs(sum - 1) <= 1e-3)) return OutputKind::kLogits;
  }
  return OutputKind::kProbabilities;
}

std::string_view MetricName(TaskMetric metric) {
  switch (metric) {
    case TaskMetric::kNone:
      return "none";
    case TaskMetric::kAccuracy:
      return "accuracy";
    case TaskMetric::kPerplexity:
      return "perplexity";
    case TaskMetric::kMse:
      return "mse";
    case TaskMetric::kMae:
      return "mae";
  }
  return "none";
}

TaskMetric ChooseMetric(const Tensor& output, const Tensor& labels) {
  if (!IsFloating(output.dtype()) || labels.dims().empty() || output.dims().empty() ||
      labels.dims()[0] != output.dims()[0]) {
    return TaskMetric::kNone;
  }
  const Dims shape = Squeezed(output.dims());
  if (IsFloating(labels.dtype())) {
    return Squeezed(labels.dims()) == shape ? TaskMetric::kMse : TaskMetric::kNone;
  }
  if (!IsInteger(labels.dtype()) || Classes(shape) < 2) return TaskMetric::kNone;
  if (labels.rank() == 2 && shape.size() == 3 && labels.dims()[1] == shape[1]) {
    return TaskMetric::kPerplexity;
  }
  const bool one_answer = output.size() == shape[0] * shape.back();
  return one_answer && labels.size() == shape[0] ? TaskMetric::kAccuracy : TaskMetric::kNone;
}

void TaskScore::Add(const Tensor& output, const Tensor& labels, OutputKind kind) {
  SF_CHECK(metric != TaskMetric::kNone);
  const auto samples = static_cast<size_t>(Samples(output));
  if (samples == 0) return;
  const Floats values(output);
  const size_t per_row = static_cast<size_t>(labels.size()) / samples;
  const bool regression = metric == TaskMetric::kMse || metric == TaskMetric::kMae;
  const int64_t classes = regression ? 1 : Classes(Squeezed(output.dims()));
  SF_CHECK(labels.size() * classes == output.size(), "labels {}, output {}",
           ToString(labels.dims()), ToString(output.dims()));
  const std::vector<float> targets = regression ? labels.ToFloats() : std::vector<float>();
  const std::vector<int64_t> indices = regression ? std::vector<int64_t>() : labels.ToInts();
  for (size_t sample = 0; sample < samples; ++sample) {
    double sample_sum = 0;
    int64_t sample_count = 0;
    for (size_t i = sample * per_row; i < (sample + 1) * per_row; ++i) {
      const std::span<const float> row = values.Row(static_cast<int64_t>(i), classes);
      if (regression) {
        const double error = double{row[0]} - targets[i];
        sample_sum += metric == TaskMetric::kMse ? error * error : std::abs(error);
      } else {
        if (metric == TaskMetric::kPerplexity && indices[i] == kIgnored) continue;
        if (indices[i] < 0 || indices[i] >= classes) {
          FailLabel(indices[i], per_sample.size(), classes);
        }
        const float own = row[static_cast<size_t>(indices[i])];
        sample_sum += metric == TaskMetric::kAccuracy ? double(ArgMax(row) == indices[i])
                                                      : -LogProbability(row, kind)(own);
      }
      ++sample_count;
    }
    per_sample.push_back(sample_sum);
    per_sample_count.push_back(sample_count);
    sum += sample_sum;
    count += sample_count;
  }
}

double TaskScore::Value() const {
  if (count == 0) return kUndefined;
  const double mean = sum / static_cast<double>(count);
  return metric == TaskMetric::kPerplexity ? std::exp(mean) : mean;
}

Interval PairedInterval(const TaskScore& a, const TaskScore& b, uint64_t seed) {
  const size_t samples = a.per_sample.size();
  SF_CHECK(a.metric == b.metric && samples == b.per_sample.size(), "{} and {} samples", samples,
           b.per_sample.size());
  const bool relative = a.metric != TaskMetric::kAccuracy;
  const size_t draws =
      std::clamp<size_t>(kMaxDrawnSamples / std::max<size_t>(samples, 1), 1000, 10000);
  std::vector<size_t> chosen(samples);
  std::vector<double> differences;
  for (size_t draw = 0; draw < draws; ++draw) {
    for (size_t i = 0; i < samples; ++i) {
      chosen[i] = Below(RandomAt(seed, draw * samples + i), samples);
    }
    const double before = Resampled(a, chosen), after = Resampled(b, chosen);
    const double difference = relative ? after / before - 1 : after - before;
    // A draw may hold no answer, or nothing to relate to.
    if (!std::isnan(difference)) differences.push_back(difference);
  }
  if (differences.empty()) return {kUndefined, kUndefined};
  std::sort(differences.begin(), differences.end());
  return {Quantile(differences, 0.025), Quantile(differences, 0.975)};
}

}  // namespace sparsefuse

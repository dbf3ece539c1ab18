// The metrics of the reports. Sums are kept per sample, so that two models can be compared pairwise.

#ifndef SPARSEFUSE_PASSES_DATA_METRICS_H_
#define SPARSEFUSE_PASSES_DATA_METRICS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "onnx_io/tensor.h"

namespace sparsefuse {

// What an output's last axis holds. Decided on the reference output: rows that are ≥ 0 and sum to 1
// within 1e-3 are probabilities.
enum class OutputKind { kLogits, kProbabilities };
OutputKind DetectOutputKind(const Tensor& output);

// Task metric from outputs [samples, …] and labels.
//   accuracy    labels [samples] (or [samples,1]): share of rows whose arg-max is the label
//   perplexity  labels [samples, length], outputs [samples, length, classes]; −100 is ignored
//   mse, mae    labels floating, of the output's shape
enum class TaskMetric { kNone, kAccuracy, kPerplexity, kMse, kMae };
std::string_view MetricName(TaskMetric metric);
// kNone when the shapes fit no metric. `outputs` and `labels` are one batch.
TaskMetric ChooseMetric(const Tensor& output, const Tensor& labels);

// Accumulates over batches. For accuracy `sum` counts correct answers; for perplexity it is the sum of
// −log p; `count` the answers. Each sample's own value is kept for paired intervals.
struct TaskScore {
  TaskMetric metric = TaskMetric::kNone;
  double sum = 0;
  int64_t count = 0;
  std::vector<double> per_sample;      // sum over the sample's answers
  std::vector<int64_t> per_sample_count;

  void Add(const Tensor& output, const Tensor& labels, OutputKind kind);
  double Value() const;  // accuracy in 0…1, perplexity = exp(sum/count), mse, mae
};

// Distances of a candidate's output to the reference's, accumulated over batches.
struct Distances {
  int64_t answers = 0;   // rows of the last axis
  int64_t flips = 0;     // arg-max differs (last axis ≥ 2)
  double kl_sum = 0;     // KL(reference ‖ candidate) over answers
  double cosine_sum = 0; int64_t samples = 0;  // per sample, whole output
  double error_energy = 0, reference_energy = 0;
  double max_abs_error = 0, max_abs_reference = 0;
  int64_t non_finite = 0;  // elements not finite in the candidate where the reference is finite
  bool constant = true;    // every candidate element seen is the same
  bool reference_constant = true;

  // Both [samples, …], floating; integer outputs count as answers that flip when they differ.
  void Add(const Tensor& reference, const Tensor& candidate, OutputKind kind);

  double Agreement() const;  // 1 − flips/answers
  double Kl() const;
  double Cosine() const;     // mean
  double SqnrDb() const;     // 10·log10(reference energy / error energy)

 private:
  std::optional<double> first_candidate_, first_reference_;
};

// Paired bootstrap over samples (10,000 draws, counter-based generator): the 95 % interval of
// b.Value() − a.Value() (perplexity: relative).
struct Interval {
  double low, high;
};
Interval PairedInterval(const TaskScore& a, const TaskScore& b, uint64_t seed);

}  // namespace sparsefuse

#endif  // SPARSEFUSE_PASSES_DATA_METRICS_H_

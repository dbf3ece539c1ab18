// The metrics of the reports. Sums are kept per sample, so that two models can be compared
// pairwise.
//
// An output is read as answers: its axes of length 1 at the end dropped (never the first axis,
// which is the sample), the last axis holds the classes of one answer, the axes before it number
// the answers. An output [samples] has one class: no arg-max, no probabilities.

#ifndef SPARSEFUSE_PASSES_DATA_METRICS_H_
#define SPARSEFUSE_PASSES_DATA_METRICS_H_

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "onnx_io/tensor.h"

namespace sparsefuse {

// What an output's last axis holds. Decided on the reference output: rows that are ≥ 0 and sum to 1
// within 1e-3 are probabilities.
enum class OutputKind { kLogits, kProbabilities };
OutputKind DetectOutputKind(const Tensor& output);

// Task metric from outputs [samples, …] and labels.
//   accuracy    integer labels [samples] (or [samples,1]): share of rows whose arg-max is the label
//   perplexity  integer labels [samples, length], outputs [samples, length, classes]; −100 is
//               ignored
//   mse, mae    labels floating, of the output's shape
enum class TaskMetric { kNone, kAccuracy, kPerplexity, kMse, kMae };
std::string_view MetricName(TaskMetric metric);
// kNone when the shapes fit no metric. `outputs` and `labels` are one batch.
TaskMetric ChooseMetric(const Tensor& output, const Tensor& labels);

// Accumulates over batches. For accuracy `sum` counts correct answers; for perplexity it is the sum
// of −log p; for mse and mae of the errors; `count` the answers (mse, mae: elements). Each sample's
// own value is kept for paired intervals.
struct TaskScore {
  TaskMetric metric = TaskMetric::kNone;
  double sum = 0;
  int64_t count = 0;
  std::vector<double> per_sample;  // sum over the sample's answers
  std::vector<int64_t> per_sample_count;

  // `metric` must be set and fit the shapes. UserError E_DATA: a label that is no class.
  void Add(const Tensor& output, const Tensor& labels, OutputKind kind);
  double Value()
      const;  // accuracy in 0…1, perplexity = exp(sum/count), mse, mae; NaN if count is 0
};

// Distances of a candidate's output to the reference's, accumulated over batches.
struct Distances {
  int64_t answers = 0;  // with at least 2 classes; every element of integer outputs
  int64_t flips = 0;    // arg-max differs; a row with NaN has none
  double kl_sum = 0;    // KL(reference ‖ candidate) over answers, in nats; rows with NaN or +inf
                        // left out; softmax of logits; probabilities floored at 1e-12
  double cosine_sum = 0;
  int64_t samples = 0;                              // per sample over its finite elements
  double error_energy = 0, reference_energy = 0;    // Σ squares, where both are finite
  double max_abs_error = 0, max_abs_reference = 0;  // the same
  int64_t non_finite = 0;  // elements not finite in the candidate where the reference is finite
  int64_t mismatched = 0;  // batches whose shapes or types differ; nothing else of them counts
  bool constant = true;    // every candidate element seen is the same
  bool reference_constant = true;

  // Both [samples, …] and floating, integer or bool. Integer outputs count as answers that flip
  // when they differ; they have no energy, cosine or KL. Other types add nothing.
  void Add(const Tensor& reference, const Tensor& candidate, OutputKind kind);

  double Agreement() const;  // 1 − flips/answers; NaN without answers
  double Kl() const;         // mean; NaN without answers
  double Cosine() const;     // mean; NaN without samples
  double SqnrDb() const;     // 10·log10(reference energy / error energy); +inf without error

 private:
  void AddIntegers(const Tensor& reference, const Tensor& candidate);
  void AddFloats(const Tensor& reference, const Tensor& candidate, OutputKind kind);
  void AddEnergies(std::span<const float> reference, std::span<const float> candidate);

  std::optional<double> first_candidate_, first_reference_;
};

// Paired bootstrap over samples (10,000 draws, fewer but at least 1,000 above 20,000 samples;
// counter-based generator): the 95 % interval of b.Value() − a.Value() (perplexity, mse, mae:
// relative to a.Value()). Both over the same samples in the same order; NaN without answers.
struct Interval {
  double low, high;
};
Interval PairedInterval(const TaskScore& a, const TaskScore& b, uint64_t seed);

}  // namespace sparsefuse

#endif  // SPARSEFUSE_PASSES_DATA_METRICS_H_

#include "passes/data/metrics.h"

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "tests/support/catch.h"

namespace sparsefuse {
namespace {

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
constexpr float kInf = std::numeric_limits<float>::infinity();

Tensor Floats(Dims dims, std::vector<float> values) { return Tensor::Of(std::move(dims), values); }
Tensor Ints(Dims dims, std::vector<int64_t> values) { return Tensor::Of(std::move(dims), values); }

// The data of the recorded numbers:
//   i = np.arange(60)
//   a = (4 * np.sin(3.0 * i)).astype(np.float32).reshape(3, 4, 5)
//   b = (a.ravel() + 2.5 * np.cos(7.0 * i)).astype(np.float32).reshape(3, 4, 5)
//   label = (np.arange(12) * 3 % 5).reshape(3, 4); label[1, 2] = -100
struct Recorded {
  Tensor a, b, label;
};
Recorded Data() {
  std::vector<float> a(60), b(60);
  std::vector<int64_t> label(12);
  for (int i = 0; i < 60; ++i) {
    a[i] = static_cast<float>(4 * std::sin(3.0 * i));
    b[i] = static_cast<float>(a[i] + 2.5 * std::cos(7.0 * i));
  }
  for (int i = 0; i < 12; ++i) label[i] = i * 3 % 5;
  label[6] = -100;
  return {Floats({3, 4, 5}, a), Floats({3, 4, 5}, b), Ints({3, 4}, label)};
}

Tensor Softmax(const Tensor& logits, int64_t classes) {
  std::vector<float> p = logits.ToFloats();
  for (size_t row = 0; row < p.size() / classes; ++row) {
    double sum = 0;
    for (int64_t i = 0; i < classes; ++i) sum += std::exp(p[row * classes + i]);
    for (int64_t i = 0; i < classes; ++i) {
      p[row * classes + i] = static_cast<float>(std::exp(p[row * classes + i]) / sum);
    }
  }
  return Floats(logits.dims(), p);
}

TaskScore Score(TaskMetric metric, const Tensor& output, const Tensor& labels,
                OutputKind kind = OutputKind::kLogits) {
  TaskScore score;
  score.metric = metric;
  score.Add(output, labels, kind);
  return score;
}

TEST_CASE("perplexity as NumPy computes it, from logits and from probabilities") {
  const Recorded data = Data();
  REQUIRE(ChooseMetric(data.a, data.label) == TaskMetric::kPerplexity);
  // l = a - log(sum(exp(a))); exp(-mean of l at the labels that are not -100), in float64
  const TaskScore a = Score(TaskMetric::kPerplexity, data.a, data.label);
  CHECK(a.Value() == Approx(38.036113551705746).epsilon(1e-6));
  CHECK(a.count == 11);
  CHECK(a.per_sample_count == std::vector<int64_t>{4, 3, 4});
  CHECK(a.per_sample[0] + a.per_sample[1] + a.per_sample[2] == Approx(a.sum));
  CHECK(Score(TaskMetric::kPerplexity, data.b, data.label).Value() ==
        Approx(46.948200861848484).epsilon(1e-6));
  CHECK(Score(TaskMetric::kPerplexity, Softmax(data.a, 5), data.label, OutputKind::kProbabilities)
            .Value() == Approx(38.036113551705746).epsilon(1e-5));
}

TEST_CASE("large logits do not overflow") {
  const TaskScore score =
      Score(TaskMetric::kPerplexity, Floats({1, 1, 2}, {3e38f, -3e38f}), Ints({1, 1}, {0}));
  CHECK(score.Value() == 1);
  // A probability of zero for the label costs the floor, not infinity.
  CHECK(Score(TaskMetric::kPerplexity, Floats({1, 1, 2}, {1, 0}), Ints({1, 1}, {1}),
              OutputKind::kProbabilities)
            .Value() == Approx(1e12));
}

TEST_CASE("batches add up to the whole") {
  const Recorded data = Data();
  const TaskScore whole = Score(TaskMetric::kPerplexity, data.a, data.label);
  TaskScore parts;
  parts.metric = TaskMetric::kPerplexity;
  const std::vector<float> values = data.a.ToFloats();
  const std::vector<int64_t> labels = data.label.ToInts();
  for (int s = 0; s < 3; ++s) {
    parts.Add(Floats({1, 4, 5}, {values.begin() + s * 20, values.begin() + (s + 1) * 20}),
              Ints({1, 4}, {labels.begin() + s * 4, labels.begin() + (s + 1) * 4}),
              OutputKind::kLogits);
  }
  CHECK(parts.sum == whole.sum);
  CHECK(parts.per_sample == whole.per_sample);
}

TEST_CASE("accuracy counts the first of the largest") {
  const Tensor logits = Floats({4, 3}, {1, 5, 2, 7, 7, 0, -3, -2, -1, 0, 0, kNaN});
  const Tensor labels = Ints({4}, {1, 0, 2, 0});
  REQUIRE(ChooseMetric(logits, labels) == TaskMetric::kAccuracy);
  const TaskScore score = Score(TaskMetric::kAccuracy, logits, labels);
  CHECK(score.per_sample == std::vector<double>{1, 1, 1, 0});  // NaN is never right
  CHECK(score.Value() == 0.75);
}

TEST_CASE("a label that is no class is an error") {
  const Tensor logits = Floats({2, 2}, {0, 1, 0, 1});
  for (const int64_t label : {-1, 2, -100}) {
    try {
      Score(TaskMetric::kAccuracy, logits, Ints({2}, {0, label}));
      FAIL("accepted");
    } catch (const UserError& error) {
      CHECK(error.code == ErrorCode::kData);
      CHECK(error.message ==
            fmt::format("label {} of sample 1 is no class: the model has 2, from 0", label));
    }
  }
}

TEST_CASE("mse and mae") {
  const Tensor output = Floats({2, 2}, {1, 2, 3, 4}), labels = Floats({2, 2}, {1, 4, 3, 1});
  REQUIRE(ChooseMetric(output, labels) == TaskMetric::kMse);
  CHECK(Score(TaskMetric::kMse, output, labels).Value() == (0 + 4 + 0 + 9) / 4.0);
  CHECK(Score(TaskMetric::kMae, output, labels).Value() == (0 + 2 + 0 + 3) / 4.0);
  CHECK(Score(TaskMetric::kMse, output, labels).per_sample == std::vector<double>{4, 9});
}

TEST_CASE("the metric follows from the shapes") {
  const auto zeros = [](Dims dims) {
    std::vector<float> values(static_cast<size_t>(*ElementCount(dims)));
    return Tensor::Of(std::move(dims), values);
  };
  const auto labels = [](Dims dims) {
    std::vector<int64_t> values(static_cast<size_t>(*ElementCount(dims)));
    return Tensor::Of(std::move(dims), values);
  };
  CHECK(ChooseMetric(zeros({4, 10}), labels({4})) == TaskMetric::kAccuracy);
  CHECK(ChooseMetric(zeros({4, 10}), labels({4, 1})) == TaskMetric::kAccuracy);
  CHECK(ChooseMetric(zeros({4, 10, 1, 1}), labels({4})) == TaskMetric::kAccuracy);
  CHECK(ChooseMetric(zeros({4, 1, 10}), labels({4})) == TaskMetric::kAccuracy);
  CHECK(ChooseMetric(zeros({4, 7, 10}), labels({4, 7})) == TaskMetric::kPerplexity);
  CHECK(ChooseMetric(zeros({1, 1, 10}), labels({1, 1})) == TaskMetric::kPerplexity);
  CHECK(ChooseMetric(zeros({4, 7, 10}), labels({4, 8})) == TaskMetric::kNone);
  CHECK(ChooseMetric(zeros({4, 1}), labels({4})) == TaskMetric::kNone);
  CHECK(ChooseMetric(zeros({4}), labels({4})) == TaskMetric::kNone);
  CHECK(ChooseMetric(zeros({5, 10}), labels({4})) == TaskMetric::kNone);
  CHECK(ChooseMetric(zeros({4, 3}), zeros({4, 3})) == TaskMetric::kMse);
  CHECK(ChooseMetric(zeros({4, 1}), zeros({4})) == TaskMetric::kMse);
  CHECK(ChooseMetric(zeros({4, 3}), zeros({4})) == TaskMetric::kNone);
  CHECK(ChooseMetric(labels({4, 10}), labels({4})) == TaskMetric::kNone);
}

TEST_CASE("probabilities are told from logits") {
  CHECK(DetectOutputKind(Floats({2, 2}, {0.25f, 0.75f, 1, 0})) == OutputKind::kProbabilities);
  CHECK(DetectOutputKind(Floats({2, 2, 1}, {0.25f, 0.75f, 1, 0})) == OutputKind::kProbabilities);
  CHECK(DetectOutputKind(Floats({2, 2}, {0.25f, 0.75f, 1, 0.5f})) == OutputKind::kLogits);
  CHECK(DetectOutputKind(Floats({1, 2}, {-0.25f, 1.25f})) == OutputKind::kLogits);
  CHECK(DetectOutputKind(Floats({1, 2}, {kNaN, 1})) == OutputKind::kLogits);
  CHECK(DetectOutputKind(Floats({2, 1}, {1, 1})) == OutputKind::kLogits);
  CHECK(DetectOutputKind(Floats({0, 2}, {})) == OutputKind::kLogits);
  CHECK(DetectOutputKind(Ints({1, 2}, {0, 1})) == OutputKind::kLogits);
}

TEST_CASE("distances as NumPy computes them") {
  const Recorded data = Data();
  Distances distances;
  distances.Add(data.a, data.b, OutputKind::kLogits);
  // (exp(la) * (la - lb)).sum(-1).mean(), la and lb log-softmax in float64
  CHECK(distances.Kl() == Approx(0.7885049874780083).epsilon(1e-6));
  // (a.argmax(-1) != b.argmax(-1)).sum()
  CHECK(distances.flips == 5);
  CHECK(distances.answers == 12);
  CHECK(distances.Agreement() == Approx(7 / 12.0));
  // mean over samples of x·y / (|x||y|)
  CHECK(distances.Cosine() == Approx(0.8534341827041171).epsilon(1e-6));
  CHECK(distances.SqnrDb() == Approx(4.264223241990829).epsilon(1e-6));
  CHECK(distances.max_abs_error == Approx(2.5).epsilon(1e-6));
  CHECK(distances.max_abs_reference == Approx(3.9996474).epsilon(1e-6));
  CHECK(distances.non_finite == 0);
  CHECK_FALSE(distances.constant);
  CHECK_FALSE(distances.reference_constant);

  Distances probabilities;
  probabilities.Add(Softmax(data.a, 5), Softmax(data.b, 5), OutputKind::kProbabilities);
  CHECK(probabilities.Kl() == Approx(0.7885049874780083).epsilon(1e-5));
  CHECK(probabilities.flips == 5);
}

TEST_CASE("an output equal to its reference") {
  const Recorded data = Data();
  Distances distances;
  distances.Add(data.a, data.a, OutputKind::kLogits);
  CHECK(distances.Kl() == 0);
  CHECK(distances.Agreement() == 1);
  CHECK(distances.Cosine() == Approx(1));
  CHECK(distances.SqnrDb() == std::numeric_limits<double>::infinity());
}

TEST_CASE("distances without answers or samples are NaN") {
  Distances distances;
  CHECK(std::isnan(distances.Agreement()));
  CHECK(std::isnan(distances.Kl()));
  CHECK(std::isnan(distances.Cosine()));
  distances.Add(Floats({3}, {1, 2, 3}), Floats({3}, {1, 2, 4}), OutputKind::kLogits);
  CHECK(distances.answers == 0);  // one class: nothing to flip
  CHECK(distances.samples == 3);
  CHECK(distances.error_energy == 1);
}

TEST_CASE("values that are not finite") {
  Distances distances;
  // Masked logits (−inf on both sides) are no fault; NaN and a new infinity are.
  distances.Add(Floats({3, 2}, {0, -kInf, 1, 2, 3, 4}),
                Floats({3, 2}, {1, -kInf, kNaN, 2, 3, kInf}), OutputKind::kLogits);
  CHECK(distances.non_finite == 2);
  CHECK(distances.flips == 1);  // the row with NaN
  CHECK(distances.kl_sum == 0);
  CHECK(distances.error_energy == 1);  // (0 − 1)²
  CHECK(std::isfinite(distances.Cosine()));

  Distances masked;  // the candidate rules out what the reference holds for likely
  masked.Add(Floats({1, 2}, {0, 0}), Floats({1, 2}, {0, -kInf}), OutputKind::kLogits);
  CHECK(masked.Kl() == Approx(0.5 * std::log(0.5) + 0.5 * std::log(0.5 / 1e-12)));
}

TEST_CASE("zero vectors have a direction in common with each other only") {
  Distances distances;
  distances.Add(Floats({2, 2}, {0, 0, 0, 0}), Floats({2, 2}, {0, 0, 1, 0}), OutputKind::kLogits);
  CHECK(distances.cosine_sum == 1);
  CHECK(distances.samples == 2);
  CHECK(distances.reference_constant);
  CHECK_FALSE(distances.constant);
}

TEST_CASE("constant outputs are seen over batches") {
  Distances distances;
  distances.Add(Floats({1, 2}, {1, 2}), Floats({1, 2}, {7, 7}), OutputKind::kLogits);
  CHECK(distances.constant);
  distances.Add(Floats({1, 2}, {1, 2}), Floats({1, 2}, {7, 7}), OutputKind::kLogits);
  CHECK(distances.constant);
  distances.Add(Floats({1, 2}, {1, 2}), Floats({1, 2}, {8, 8}), OutputKind::kLogits);
  CHECK_FALSE(distances.constant);
}

TEST_CASE("integer outputs flip when they differ") {
  Distances distances;
  distances.Add(Ints({2, 2}, {1, 2, 3, 4}), Ints({2, 2}, {1, 2, 3, 5}), OutputKind::kLogits);
  CHECK(distances.answers == 4);
  CHECK(distances.flips == 1);
  CHECK(distances.samples == 0);
  const Tensor yes = Tensor::FromBytes(DType::kBool, {1}, std::as_bytes(std::span("\1", 1)));
  const Tensor no = Tensor::FromBytes(DType::kBool, {1}, std::as_bytes(std::span("\0", 1)));
  distances.Add(yes, no, OutputKind::kLogits);
  CHECK(distances.flips == 2);
}

TEST_CASE("another shape or type is a mismatch") {
  Distances distances;
  distances.Add(Floats({1, 2}, {1, 2}), Floats({2}, {1, 2}), OutputKind::kLogits);
  distances.Add(Floats({1, 2}, {1, 2}), Ints({1, 2}, {1, 2}), OutputKind::kLogits);
  CHECK(distances.mismatched == 2);
  CHECK(distances.answers == 0);
}

// Accuracy over `samples` samples, right where `right` says so.
TaskScore Answers(const std::vector<bool>& right) {
  TaskScore score;
  score.metric = TaskMetric::kAccuracy;
  for (const bool r : right) {
    score.per_sample.push_back(r);
    score.per_sample_count.push_back(1);
    score.sum += r;
    ++score.count;
  }
  return score;
}

TEST_CASE("the paired interval agrees with the normal approximation") {
  // 400 samples; b loses 40 that a has and gains 20: difference −0.05, its standard error
  // √((60/400 − 0.05²)/400) = 0.01920.
  std::vector<bool> a(400), b(400);
  for (int i = 0; i < 400; ++i) {
    a[i] = i < 300;
    b[i] = i < 300 ? i >= 40 : i < 320;
  }
  const Interval interval = PairedInterval(Answers(a), Answers(b), 1);
  CHECK(interval.low == Approx(-0.05 - 1.96 * 0.0192).margin(0.004));
  CHECK(interval.high == Approx(-0.05 + 1.96 * 0.0192).margin(0.004));
  const Interval again = PairedInterval(Answers(a), Answers(b), 1);
  CHECK(again.low == interval.low);
  CHECK(again.high == interval.high);
  // Pairs that agree have no difference, however few.
  const Interval same = PairedInterval(Answers(a), Answers(a), 1);
  CHECK(same.low == 0);
  CHECK(same.high == 0);
}

TEST_CASE("the interval of perplexity is relative") {
  TaskScore a, b;
  a.metric = b.metric = TaskMetric::kPerplexity;
  for (int i = 0; i < 50; ++i) {
    const double nats = 10 + i % 7;
    a.per_sample.push_back(nats);
    b.per_sample.push_back(nats + 10 * 0.01);  // each answer costs 0.01 nats more
    a.per_sample_count.push_back(10);
    b.per_sample_count.push_back(10);
  }
  const Interval interval = PairedInterval(a, b, 5);
  CHECK(interval.low == Approx(std::exp(0.01) - 1));
  CHECK(interval.high == Approx(std::exp(0.01) - 1));
}

TEST_CASE("an interval over nothing is NaN") {
  CHECK(std::isnan(PairedInterval(Answers({}), Answers({}), 0).low));
}

}  // namespace
}  // namespace sparsefuse

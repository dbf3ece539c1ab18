#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <span>

#include "passes/data/answers.h"
#include "passes/data/metrics.h"

namespace sparsefuse {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();

// Nats; both rows without NaN and +inf.
double KlDivergence(std::span<const float> reference, std::span<const float> candidate,
                    OutputKind kind) {
  static const double kFloor = std::log(kMinProbability);
  const LogProbability log_p(reference, kind), log_q(candidate, kind);
  double sum = 0;
  for (size_t i = 0; i < reference.size(); ++i) {
    const double lp = log_p(reference[i]);
    const double p = std::exp(lp);
    // A class that the candidate masks out (−inf) counts with the floor.
    if (p > 0) sum += p * (lp - std::max(log_q(candidate[i]), std::min(kFloor, lp)));
  }
  return std::max(0.0, sum);  // rounding
}

bool HasDistribution(std::span<const float> row) {
  return std::none_of(row.begin(), row.end(), [](float x) {
    return std::isnan(x) || x == std::numeric_limits<float>::infinity();
  });
}

template <typename T>
bool AllEqual(std::span<const T> values, std::optional<double>& first) {
  if (!values.empty() && !first) first = static_cast<double>(values[0]);
  return std::all_of(values.begin(), values.end(),
                     [&](T x) { return static_cast<double>(x) == *first; });
}

}  // namespace

void Distances::Add(const Tensor& reference, const Tensor& candidate, OutputKind kind) {
  if (reference.dims() != candidate.dims() || reference.dtype() != candidate.dtype()) {
    ++mismatched;
  } else if (IsInteger(reference.dtype())) {
    AddIntegers(reference, candidate);
  } else if (IsFloating(reference.dtype())) {
    AddFloats(reference, candidate, kind);
  }
}

void Distances::AddIntegers(const Tensor& reference, const Tensor& candidate) {
  const std::vector<int64_t> a = reference.ToInts(), b = candidate.ToInts();
  answers += reference.size();
  for (size_t i = 0; i < a.size(); ++i) flips += a[i] != b[i];
  constant &= AllEqual(std::span<const int64_t>(b), first_candidate_);
  reference_constant &= AllEqual(std::span<const int64_t>(a), first_reference_);
}

void Distances::AddFloats(const Tensor& reference, const Tensor& candidate, OutputKind kind) {
  const Floats a(reference), b(candidate);
  constant &= AllEqual(b.All(), first_candidate_);
  reference_constant &= AllEqual(a.All(), first_reference_);
  const int64_t classes = Classes(Squeezed(reference.dims()));
  for (int64_t row = 0; classes > 1 && row < reference.size() / classes; ++row) {
    const std::span<const float> p = a.Row(row, classes), q = b.Row(row, classes);
    ++answers;
    flips += ArgMax(p) != ArgMax(q);
    if (HasDistribution(p) && HasDistribution(q)) kl_sum += KlDivergence(p, q, kind);
  }
  const int64_t count = Samples(reference);
  for (int64_t sample = 0; sample < count && reference.size() > 0; ++sample) {
    AddEnergies(a.Row(sample, reference.size() / count), b.Row(sample, reference.size() / count));
  }
}

void Distances::AddEnergies(std::span<const float> reference, std::span<const float> candidate) {
  double dot = 0, reference_square = 0, candidate_square = 0;
  for (size_t i = 0; i < reference.size(); ++i) {
    const double x = reference[i], y = candidate[i];
    if (!std::isfinite(x)) continue;
    if (!std::isfinite(y)) {
      ++non_finite;
      continue;
    }
    dot += x * y;
    reference_square += x * x;
    candidate_square += y * y;
    error_energy += (x - y) * (x - y);
    max_abs_error = std::max(max_abs_error, std::abs(x - y));
    max_abs_reference = std::max(max_abs_reference, std::abs(x));
  }
  reference_energy += reference_square;
  // Two zero vectors agree; one alone has no direction in common with anything.
  const double norms = std::sqrt(reference_square) * std::sqrt(candidate_square);
  cosine_sum += norms > 0 ? dot / norms : reference_square == candidate_square ? 1 : 0;
  ++samples;
}

double Distances::Agreement() const {
  return answers == 0 ? kNaN : 1 - static_cast<double>(flips) / static_cast<double>(answers);
}

double Distances::Kl() const { return answers == 0 ? kNaN : kl_sum / static_cast<double>(answers); }

double Distances::Cosine() const {
  return samples == 0 ? kNaN : cosine_sum / static_cast<double>(samples);
}

double Distances::SqnrDb() const {
  if (error_energy == 0) return kInfinity;
  return 10 * std::log10(reference_energy / error_energy);
}

}  // namespace sparsefuse

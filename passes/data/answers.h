// How metrics read an output: rows of classes, and the log probability of a class.

#ifndef SPARSEFUSE_PASSES_DATA_ANSWERS_H_
#define SPARSEFUSE_PASSES_DATA_ANSWERS_H_

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <span>
#include <vector>

#include "onnx_io/tensor.h"
#include "passes/data/metrics.h"

namespace sparsefuse {

// Finite divergences need a floor: a softmax in float gives zeros.
inline constexpr double kMinProbability = 1e-12;

// A floating tensor's elements as float, copied only if they are of another type.
class Floats {
 public:
  explicit Floats(const Tensor& tensor) {
    if (tensor.dtype() == DType::kFloat) {
      values_ = tensor.data<float>();
    } else {
      converted_ = tensor.ToFloats();
      values_ = converted_;
    }
  }
  std::span<const float> Row(int64_t row, int64_t width) const {
    return values_.subspan(static_cast<size_t>(row * width), static_cast<size_t>(width));
  }
  std::span<const float> All() const { return values_; }

 private:
  std::vector<float> converted_;
  std::span<const float> values_;
};

// Without axes of length 1 at the end, the first axis kept.
inline Dims Squeezed(Dims dims) {
  while (dims.size() > 1 && dims.back() == 1) dims.pop_back();
  return dims;
}

inline int64_t Classes(const Dims& squeezed) { return squeezed.size() > 1 ? squeezed.back() : 1; }

inline int64_t Samples(const Tensor& tensor) {
  return tensor.dims().empty() ? 1 : tensor.dims()[0];
}

inline bool IsInteger(DType dtype) {
  return dtype == DType::kBool || (dtype >= DType::kUint8 && dtype <= DType::kInt64) ||
         dtype == DType::kUint32 || dtype == DType::kUint64;
}

// The first of the largest; −1 if any is NaN.
inline int64_t ArgMax(std::span<const float> row) {
  size_t best = 0;
  for (size_t i = 0; i < row.size(); ++i) {
    if (std::isnan(row[i])) return -1;
    if (row[i] > row[best]) best = i;
  }
  return static_cast<int64_t>(best);
}

// log Σ exp(row), without overflow.
inline double LogSumExp(std::span<const float> row) {
  const double top = *std::max_element(row.begin(), row.end());
  double sum = 0;
  for (const float x : row) sum += std::exp(x - top);
  return top + std::log(sum);
}

// log p of each class as row[i] → LogP(row[i]).
class LogProbability {
 public:
  LogProbability(std::span<const float> row, OutputKind kind)
      : kind_(kind), log_sum_(kind == OutputKind::kLogits ? LogSumExp(row) : 0) {}
  double operator()(float x) const {
    if (kind_ == OutputKind::kLogits) return x - log_sum_;
    return std::isnan(x) ? x : std::log(std::max<double>(x, kMinProbability));
  }

 private:
  OutputKind kind_;
  double log_sum_;
};

}  // namespace sparsefuse

#endif  // SPARSEFUSE_PASSES_DATA_ANSWERS_H_

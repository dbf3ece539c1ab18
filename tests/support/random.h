// Draws from a normal distribution, the same for a seed on every machine.

#ifndef SPARSEFUSE_TESTS_SUPPORT_RANDOM_H_
#define SPARSEFUSE_TESTS_SUPPORT_RANDOM_H_

#include <Eigen/Core>
#include <cstdint>
#include <random>
#include <vector>

#include "onnx_io/tensor.h"

namespace sparsefuse::test {

inline std::vector<float> NormalValues(int64_t count, uint32_t seed, float deviation = 1) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0, deviation);
  std::vector<float> values(static_cast<size_t>(count));
  for (float& v : values) v = normal(random);
  return values;
}

inline Tensor NormalTensor(const Dims& dims, uint32_t seed, float deviation = 1) {
  return Tensor::Of(dims, NormalValues(*ElementCount(dims), seed, deviation));
}

inline Eigen::MatrixXd NormalMatrix(Eigen::Index rows, Eigen::Index columns, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<double> normal;
  return Eigen::MatrixXd::NullaryExpr(rows, columns, [&] { return normal(random); });
}

}  // namespace sparsefuse::test

#endif  // SPARSEFUSE_TESTS_SUPPORT_RANDOM_H_

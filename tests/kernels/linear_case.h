// Random layers for tests and benchmarks of the linear kernels.

#ifndef SPARSEFUSE_TESTS_KERNELS_LINEAR_CASE_H_
#define SPARSEFUSE_TESTS_KERNELS_LINEAR_CASE_H_

#include <cstdint>
#include <random>
#include <vector>

#include "kernels/linear/linear.h"

namespace sparsefuse::test {

// A layer with codes over the whole range, scales over a wide one, and its constants as in a file.
struct LinearLayer {
  LinearLayer(LinearShape shape, uint32_t seed, bool with_smooth = false);

  LinearWeights weights() const;

  LinearShape shape;
  std::vector<int8_t> codes;  // [N, K]
  std::vector<int8_t> packed;
  std::vector<uint8_t> scale_code;
  float scale_base;
  std::vector<float> bias;
  std::vector<float> smooth;  // empty for ones
};

// rows·inputs normally distributed values.
std::vector<float> RandomRows(int64_t rows, int64_t inputs, uint32_t seed);

// The operator written down once more, from the format alone and in double precision.
struct Exact {
  std::vector<double> y;      // [rows, N]; NaN where it must be NaN
  std::vector<double> bound;  // allowed |y − exact|, linear.h
};
Exact ExactLinear(const LinearLayer& layer, const std::vector<float>& x, int64_t rows);

}  // namespace sparsefuse::test

#endif  // SPARSEFUSE_TESTS_KERNELS_LINEAR_CASE_H_

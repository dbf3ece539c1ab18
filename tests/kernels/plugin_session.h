// Sessions over one-node models that use the operator library, and what comes out of them.

#ifndef SPARSEFUSE_TESTS_KERNELS_PLUGIN_SESSION_H_
#define SPARSEFUSE_TESTS_KERNELS_PLUGIN_SESSION_H_

#include <cstdint>
#include <vector>

#include "tests/kernels/layer_model.h"

namespace sparsefuse::test {

Ort::Session Load(const NodeModel& model, const Ort::SessionOptions& options);
// With the operator library.
Ort::Session Load(const NodeModel& model, int threads = 1);

template <typename T>
Ort::Value Tensor(std::vector<T>& values, const std::vector<int64_t>& dims) {
  static const Ort::MemoryInfo cpu =
      Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
  return Ort::Value::CreateTensor<T>(cpu, values.data(), values.size(), dims.data(), dims.size());
}

struct Output {
  std::vector<float> values;
  std::vector<int64_t> dims;
};
Output Run(Ort::Session& session, std::vector<float> x, const std::vector<int64_t>& dims);
// x rounded to float16, which it is afterwards.
Output RunHalf(Ort::Session& session, std::vector<float>& x, const std::vector<int64_t>& dims);

// Requires every element to be within its bound; of float16 output, after rounding.
void CheckAgainst(const Exact& exact, const std::vector<float>& y, bool half = false);

}  // namespace sparsefuse::test

#endif  // SPARSEFUSE_TESTS_KERNELS_PLUGIN_SESSION_H_

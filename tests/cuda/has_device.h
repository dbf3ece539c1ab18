// For tests that need a GPU: `if (!HasDevice()) return;`

#ifndef SPARSEFUSE_TESTS_CUDA_HAS_DEVICE_H_
#define SPARSEFUSE_TESTS_CUDA_HAS_DEVICE_H_

#include "tests/cuda/device_layer.h"
#include "tests/support/catch.h"

namespace sparsefuse::test {

// Says so if there is none.
inline bool HasDevice() {
  int count = 0;
  const cudaError_t found = cudaGetDeviceCount(&count);
  if (found == cudaErrorNoDevice || found == cudaErrorInsufficientDriver) {
    WARN("SKIPPED: no GPU here");
    return false;
  }
  Check(found, "looking for a GPU");
  return true;
}

}  // namespace sparsefuse::test

#endif  // SPARSEFUSE_TESTS_CUDA_HAS_DEVICE_H_

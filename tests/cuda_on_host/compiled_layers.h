// Layers that kernels are made for, to run on the host.

#ifndef SPARSEFUSE_TESTS_CUDA_ON_HOST_COMPILED_LAYERS_H_
#define SPARSEFUSE_TESTS_CUDA_ON_HOST_COMPILED_LAYERS_H_

#include <vector>

#include "tests/cuda/patterns.h"

namespace sparsefuse::test {

inline constexpr const char* kHostTarget = "sm_90a";  // device 9.0

// One of each pattern, the encodings in turn, and one with several rows of scales.
inline std::vector<LinearLayer> LayersOnHost() {
  std::vector<LinearLayer> layers;
  for (const Pattern pattern : kPatterns) {
    layers.push_back(MakeLayer(kEncodings[layers.size() % 4], pattern, 200, 70, 0.6, 7));
  }
  layers.emplace_back(LinearShape{200, 70, 2, Encoding::kInt4, false}, 8);
  return layers;
}

}  // namespace sparsefuse::test

#endif  // SPARSEFUSE_TESTS_CUDA_ON_HOST_COMPILED_LAYERS_H_

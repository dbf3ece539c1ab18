// What is compiled for layers under test.

#ifndef SPARSEFUSE_TESTS_CUDA_COMPILED_INSTANCES_H_
#define SPARSEFUSE_TESTS_CUDA_COMPILED_INSTANCES_H_

#include <vector>

#include "kernels/cuda/plan.h"
#include "passes/cuda/source.h"
#include "tests/cuda/patterns.h"

namespace sparsefuse::test {

// Of each layer two, for float and for float16.
inline std::vector<cuda::Instance> InstancesFor(const std::vector<LinearLayer>& layers,
                                                const CudaTarget& target) {
  std::vector<cuda::Instance> instances;
  for (const LinearLayer& layer : layers) {
    const cuda::Plan plan = cuda::MakePlan(layer.shape, layer.weights().blocks, 1);
    CudaLayer found = {.node = "", .shape = layer.shape};
    found.activation = kCompiledActivation;
    found.groups = layer.groups();
    found.pattern = cuda::PatternOf(layer.shape, plan);
    found.shared_panels = plan.shared_panels;
    for (const bool half : {false, true}) {
      found.half = half;
      instances.push_back(InstanceOf(found, ChooseTile(found, target, kCompiledRows), target));
    }
  }
  return instances;
}

}  // namespace sparsefuse::test

#endif  // SPARSEFUSE_TESTS_CUDA_COMPILED_INSTANCES_H_

// Writes the source of kernels for LayersOnHost, which kernels.cpp includes: write_source FILE.

#include <cstdio>
#include <fstream>
#include <string>

#include "passes/cuda/source.h"
#include "tests/cuda/compiled_instances.h"
#include "tests/cuda_on_host/compiled_layers.h"

int main(int argc, char** argv) {
  using namespace sparsefuse;
  if (argc != 2) {
    std::fprintf(stderr, "write_source FILE\n");
    return 2;
  }
  std::ofstream file(argv[1]);
  for (const CudaTarget& target : CudaTargets()) {
    if (target.name != test::kHostTarget) continue;
    file << CudaSource(test::InstancesFor(test::LayersOnHost(), target), target);
  }
  if (!file.flush() || file.tellp() <= 0) {
    std::fprintf(stderr, "%s cannot be written, or there is no target %s\n", argv[1],
                 test::kHostTarget);
    return 1;
  }
  return 0;
}

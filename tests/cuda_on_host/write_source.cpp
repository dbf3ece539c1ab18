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
  return file.flush() && file.tellp() > 0 ? 0 : 1;
}

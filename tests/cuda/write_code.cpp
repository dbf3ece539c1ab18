// Compiles the kernels that test_code.cpp runs: write_code FOLDER NVCC. Needs no GPU.

#include <cstdio>
#include <fstream>
#include <string>

#include "passes/cuda/compiler.h"
#include "passes/cuda/source.h"
#include "tests/cuda/compiled_instances.h"

namespace sparsefuse {
namespace {

int Main(const std::string& folder, const std::string& compiler) {
  for (const CudaTarget& target : CudaTargets()) {
    const std::vector<cuda::Instance> instances =
        test::InstancesFor(test::CompiledLayers(), target);
    const std::string code = CompileCuda(compiler, CudaSource(instances, target), target.name);
    const std::string path = folder + "/compiled_layers-" + std::string(target.name) + ".cubin";
    std::ofstream file(path, std::ios::binary);
    file << code;
    if (!file.flush()) {
      std::fprintf(stderr, "%s cannot be written\n", path.c_str());
      return 1;
    }
  }
  return 0;
}

}  // namespace
}  // namespace sparsefuse

int main(int argc, char** argv) {
  if (argc != 3) {
    std::fprintf(stderr, "write_code FOLDER NVCC\n");
    return 2;
  }
  return sparsefuse::Main(argv[1], argv[2]);
}

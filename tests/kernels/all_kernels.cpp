#include "tests/kernels/all_kernels.h"

#include "tests/kernels/emulated_amx.h"
#include "tests/kernels/emulated_vnni.h"

namespace sparsefuse::test {

std::vector<const LinearKernel*> Kernels() {
  std::vector<const LinearKernel*> kernels;
  for (const LinearKernel* kernel : AllLinearKernels()) {
    if (DetectCpuFeatures().Contains(kernel->needs)) kernels.push_back(kernel);
  }
  kernels.push_back(&kEmulatedVnni);
  kernels.push_back(&kEmulatedAmx);
  return kernels;
}

}  // namespace sparsefuse::test

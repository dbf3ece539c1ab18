// What the linear kernels' tests run. Apart from what runs them: imitations take long to compile.

#ifndef SPARSEFUSE_TESTS_KERNELS_ALL_KERNELS_H_
#define SPARSEFUSE_TESTS_KERNELS_ALL_KERNELS_H_

#include <vector>

#include "kernels/linear/linear.h"

namespace sparsefuse::test {

// The kernels that this CPU runs, and the imitated ones.
std::vector<const LinearKernel*> Kernels();

}  // namespace sparsefuse::test

#endif  // SPARSEFUSE_TESTS_KERNELS_ALL_KERNELS_H_

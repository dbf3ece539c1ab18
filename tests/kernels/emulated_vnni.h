// The AVX512-VNNI kernel with its vector operations imitated lane by lane, so that its algorithm is
// tested on every machine.

#ifndef SPARSEFUSE_TESTS_KERNELS_EMULATED_VNNI_H_
#define SPARSEFUSE_TESTS_KERNELS_EMULATED_VNNI_H_

#include "kernels/linear/linear.h"

namespace sparsefuse::test {

extern const LinearKernel kEmulatedVnni;

}  // namespace sparsefuse::test

#endif  // SPARSEFUSE_TESTS_KERNELS_EMULATED_VNNI_H_

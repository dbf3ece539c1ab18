// The AMX kernel with its tile unit and vector operations imitated, so that its algorithm is tested
// on every machine.

#ifndef SPARSEFUSE_TESTS_KERNELS_EMULATED_AMX_H_
#define SPARSEFUSE_TESTS_KERNELS_EMULATED_AMX_H_

#include "kernels/linear/linear.h"

namespace sparsefuse::test {

extern const LinearKernel kEmulatedAmx;

}  // namespace sparsefuse::test

#endif  // SPARSEFUSE_TESTS_KERNELS_EMULATED_AMX_H_

// The kernels, one in each file of its name; linear.cpp puts them into one table.

#ifndef SPARSEFUSE_KERNELS_LINEAR_KERNELS_H_
#define SPARSEFUSE_KERNELS_LINEAR_KERNELS_H_

#include "kernels/linear/linear.h"

namespace sparsefuse {

extern const LinearKernel kLinearRef;
#if defined(__x86_64__)
extern const LinearKernel kLinearAvx2;
extern const LinearKernel kLinearAvx512Vnni;
extern const LinearKernel kLinearAmx;
#endif

}  // namespace sparsefuse

#endif  // SPARSEFUSE_KERNELS_LINEAR_KERNELS_H_

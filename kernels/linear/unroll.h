// SPARSEFUSE_UNROLL before a loop of a fixed count: in full, so that its vectors stay in registers.

#ifndef SPARSEFUSE_KERNELS_LINEAR_UNROLL_H_
#define SPARSEFUSE_KERNELS_LINEAR_UNROLL_H_

#if defined(__clang__)
#define SPARSEFUSE_UNROLL _Pragma("clang loop unroll(full)")
#else
#define SPARSEFUSE_UNROLL _Pragma("GCC unroll 32")
#endif

#endif  // SPARSEFUSE_KERNELS_LINEAR_UNROLL_H_

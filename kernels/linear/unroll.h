// Before a loop of a fixed count: SPARSEFUSE_UNROLL in full, so that its vectors stay in registers;
// SPARSEFUSE_ROLLED not at all.

#ifndef SPARSEFUSE_KERNELS_LINEAR_UNROLL_H_
#define SPARSEFUSE_KERNELS_LINEAR_UNROLL_H_

#if defined(__clang__)
#define SPARSEFUSE_UNROLL _Pragma("clang loop unroll(full)")
#define SPARSEFUSE_ROLLED _Pragma("clang loop unroll(disable)")
#else
#define SPARSEFUSE_UNROLL _Pragma("GCC unroll 32")
#define SPARSEFUSE_ROLLED _Pragma("GCC unroll 1")
#endif

#endif  // SPARSEFUSE_KERNELS_LINEAR_UNROLL_H_

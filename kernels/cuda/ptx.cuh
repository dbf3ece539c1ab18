// What the kernels of this folder share of PTX's instructions, copies, barriers, products, and how
// blocks meet. Kept apart, so that tests can put functions of the host in their place.

#ifndef SPARSEFUSE_KERNELS_CUDA_PTX_CUH_
#define SPARSEFUSE_KERNELS_CUDA_PTX_CUH_

#include <cstdint>

namespace sparsefuse::cuda {

// The address that instructions for shared memory take.
__device__ inline uint32_t SharedAddress(const void* shared) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(shared));
}

// --- Copies from global to shared memory ---

// Read once: not worth a place in the first-level cache.
__device__ inline void CopyAsync16(void* shared, const void* global) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(SharedAddress(shared)), "l"(global)
               : "memory");
}
__device__ inline void CopyAsync4(void* shared, const void* global) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(SharedAddress(shared)), "l"(global)
               : "memory");
}
// Copies 16 bytes, or none and writes zeros.
__device__ inline void CopyAsync16OrZero(void* shared, const void* global, bool copy) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(SharedAddress(shared)),
               "l"(global), "r"(copy ? 16 : 0)
               : "memory");
}
__device__ inline void CopyAsync4OrZero(void* shared, const void* global, bool copy) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(SharedAddress(shared)),
               "l"(global), "r"(copy ? 4 : 0)
               : "memory");
}
__device__ inline void CommitCopies() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int kPending>
__device__ inline void WaitForCopies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}

// --- Barriers in shared memory of which one side only arrives ---

using Barrier = uint64_t;

__device__ inline void InitBarrier(Barrier* barrier, int arrivals) {
  asm volatile("mbarrier.init.shared.b64 [%0], %1;" ::"r"(SharedAddress(barrier)), "r"(arrivals)
               : "memory");
}
__device__ inline void Arrive(Barrier* barrier) {
  [[maybe_unused]] uint64_t state;
  asm volatile("mbarrier.arrive.shared.b64 %0, [%1];"
               : "=l"(state)
               : "r"(SharedAddress(barrier))
               : "memory");
}
// Until the phase of this parity (0 for the first) is complete.
__device__ inline void WaitFor(Barrier* barrier, int parity) {
  uint32_t done;
  do {
    asm volatile(
        "{\n .reg .pred p;\n mbarrier.test_wait.parity.shared.b64 p, [%1], %2;\n"
        " selp.u32 %0, 1, 0, p;\n}"
        : "=r"(done)
        : "r"(SharedAddress(barrier)), "r"(parity)
        : "memory");
  } while (!done);
}

// --- Blocks that meet in global memory ---

// Counts this one in; how many came before.
__device__ inline int32_t CountArrival(int32_t* arrived) { return atomicAdd(arrived, 1); }

// --- Products ---

// sum[16 outputs × 8 rows] += a[16 × 32 inputs] · b[32 × 8], 8-bit integers, exact.
__device__ inline void MultiplyAdd(int32_t (&sum)[4], uint32_t a0, uint32_t a1, uint32_t a2,
                                   uint32_t a3, uint32_t b0, uint32_t b1) {
  asm("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};"
      : "+r"(sum[0]), "+r"(sum[1]), "+r"(sum[2]), "+r"(sum[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

}  // namespace sparsefuse::cuda

#endif  // SPARSEFUSE_KERNELS_CUDA_PTX_CUH_

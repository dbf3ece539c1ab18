// What a GPU is taken for on the host.

#ifndef SPARSEFUSE_TESTS_CUDA_ON_HOST_DEVICE_ON_HOST_H_
#define SPARSEFUSE_TESTS_CUDA_ON_HOST_DEVICE_ON_HOST_H_

namespace sparsefuse::test {

struct DeviceOnHost {
  int major = 8, minor = 0;
  int shared_kib = 164;         // of a multiprocessor
  bool copies_are_late = true;  // from global to shared memory: when waited for, or at once
  bool last_first = false;      // blocks, and a block's threads, in their turns
};
void UseDeviceOnHost(const DeviceOnHost& one);

}  // namespace sparsefuse::test

#endif  // SPARSEFUSE_TESTS_CUDA_ON_HOST_DEVICE_ON_HOST_H_

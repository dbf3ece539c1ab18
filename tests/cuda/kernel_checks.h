// What is asked of the kernels on a GPU and, of smaller layers, on the host (tests/cuda_on_host).

#ifndef SPARSEFUSE_TESTS_CUDA_KERNEL_CHECKS_H_
#define SPARSEFUSE_TESTS_CUDA_KERNEL_CHECKS_H_

#include <initializer_list>
#include <vector>

#include "tests/cuda/device_layer.h"

namespace sparsefuse::test {

// Random rows against the format's definition.
void CheckDefinition(const LinearLayer& layer, std::initializer_list<const DeviceLayer*> devices,
                     int64_t rows);

// Every activation, in both element types.
void CheckActivations(const LinearShape& shape, int64_t rows);

// That rows with NaN or Inf are all NaN, one of zeros is the bias, and no other changes. rows ≥ 4.
void CheckSpecialRows(const LinearShape& shape, int64_t rows);

// A layer of 200 inputs with a gate that takes rows below an estimate of `easy_below` for easy …
LinearLayer GatedLayer(Encoding encoding, bool sparse, int64_t sketch_rows, float easy_below = 1);
// … and two thirds of the rows read in 4 bits by it, and counted.
void CheckEasyRows(const LinearLayer& gated, const DeviceLayer& device, int64_t rows);

// Rows of which about this share of the inputs is 0 in all of them, and others in some.
std::vector<float> SparseRows(int64_t rows, int64_t inputs, double zeros, uint32_t seed);
// A layer that skips zeros at any number of rows that may.
LinearLayer SkippingLayer(LinearShape shape, bool smooth = false);
// That integer sums are the CPU's reference kernel's where zeros are skipped.
void CheckSkippingSums(LinearShape shape, int64_t rows);

}  // namespace sparsefuse::test

#endif  // SPARSEFUSE_TESTS_CUDA_KERNEL_CHECKS_H_

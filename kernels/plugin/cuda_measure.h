// What libsparsefuse_cuda.so exports for the tool: which GPUs are here, and how long a layer takes
// on one of them. The two must be of one build. Includes nothing of CUDA's or ONNX Runtime's.

#ifndef SPARSEFUSE_KERNELS_PLUGIN_CUDA_MEASURE_H_
#define SPARSEFUSE_KERNELS_PLUGIN_CUDA_MEASURE_H_

#include <array>
#include <cstdint>

#include "kernels/linear/linear.h"

namespace sparsefuse::plugin {

enum class CudaOutcome : int32_t {
  kDone,
  kNoDevice,  // no driver, or no GPU that it can use
  kFailed,    // also where `build` is not the library's own
};

// Why it is not kDone.
using CudaFault = std::array<char, 512>;

struct CudaDevices {
  int32_t count;  // those beyond the array are left out
  struct {
    char architecture[16];  // "sm_90a"
    char name[256];         // "NVIDIA H200"
  } device[16];             // by CUDA's numbers
};
inline constexpr char kFindCudaDevices[] = "SparsefuseFindCudaDevices";
using FindCudaDevices = CudaOutcome(const char* build, CudaDevices* devices, CudaFault* fault);

struct CudaMeasurement {
  int32_t device;
  LinearShape shape;
  BlockIndex blocks;  // of a sparse layer, in host memory; must pass CheckBlocks
  Activation activation;
  bool half;
  int64_t rows;         // > 16: what tiles are for
  int32_t tile_panels;  // of a tile: 4, 2 or 1, what the blocks allow
  const void* code;     // compiled for the layer and the device; null: the library's own kernels
};
// The median of 51 runs in a row, after as many that do not count. Weights and inputs are made up:
// times depend on the layer's size and blocks. One that it cannot run is kFailed.
inline constexpr char kMeasureCudaLayer[] = "SparsefuseMeasureCudaLayer";
using MeasureCudaLayer = CudaOutcome(const char* build, const CudaMeasurement* what,
                                     double* microseconds, CudaFault* fault);

}  // namespace sparsefuse::plugin

#endif  // SPARSEFUSE_KERNELS_PLUGIN_CUDA_MEASURE_H_

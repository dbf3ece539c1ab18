// Layers timed on the GPUs of this machine; cuda_measure.h says what. No exception leaves them, and
// no memory of the device is kept.

#ifndef SPARSEFUSE_KERNELS_PLUGIN_CUDA_MEASURE_LAYER_H_
#define SPARSEFUSE_KERNELS_PLUGIN_CUDA_MEASURE_LAYER_H_

#include "kernels/plugin/cuda_measure.h"

namespace sparsefuse::plugin {

CudaOutcome FindDevices(CudaDevices& devices, CudaFault& fault) noexcept;
CudaOutcome MeasureLayer(const CudaMeasurement& what, double& microseconds,
                         CudaFault& fault) noexcept;

}  // namespace sparsefuse::plugin

#endif  // SPARSEFUSE_KERNELS_PLUGIN_CUDA_MEASURE_LAYER_H_

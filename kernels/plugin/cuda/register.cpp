// The library's exported symbols, for libsparsefuse_ops.so and the tool alone.

#include <cstdio>
#include <cstring>

#include "kernels/plugin/cuda/gate_counts.h"
#include "kernels/plugin/cuda/linear_kernel.h"
#include "kernels/plugin/cuda/measure.h"
#include "kernels/plugin/cuda_library.h"
#include "kernels/plugin/ort_api.h"

extern "C" __attribute__((visibility("default"))) OrtStatus* SparsefuseAddCudaOps(
    const char* build, const OrtApi* api, OrtCustomOpDomain* domain) {
  using namespace sparsefuse::plugin;
  if (std::strcmp(build, Build()) != 0) {
    return Error(*api, ORT_FAIL, "is of build %.60s, the library that loads it of build %.60s",
                 Build(), build);
  }
  // As long as the library, which is never unloaded: longer than any session.
  static const LinearOps ops(*api, kCudaLinear);
  return ops.AddTo(domain);
}

extern "C" __attribute__((visibility("default"))) void SparsefuseCudaGateCounts(
    int64_t* rows, int64_t* easy) noexcept {
  sparsefuse::plugin::ReadGateCounts(rows, easy);
}

namespace sparsefuse::plugin {
namespace {

bool IsOwn(const char* build, CudaFault& fault) noexcept {
  if (std::strcmp(build, Build()) == 0) return true;
  std::snprintf(fault.data(), fault.size(), "is of build %.60s, the tool of build %.60s", Build(),
                build);
  return false;
}

}  // namespace
}  // namespace sparsefuse::plugin

extern "C" __attribute__((visibility("default"))) sparsefuse::plugin::CudaOutcome
SparsefuseFindCudaDevices(const char* build, sparsefuse::plugin::CudaDevices* devices,
                          sparsefuse::plugin::CudaFault* fault) noexcept {
  using namespace sparsefuse::plugin;
  return IsOwn(build, *fault) ? FindDevices(*devices, *fault) : CudaOutcome::kFailed;
}

extern "C" __attribute__((visibility("default"))) sparsefuse::plugin::CudaOutcome
SparsefuseMeasureCudaLayer(const char* build, const sparsefuse::plugin::CudaMeasurement* what,
                           double* microseconds, sparsefuse::plugin::CudaFault* fault) noexcept {
  using namespace sparsefuse::plugin;
  return IsOwn(build, *fault) ? MeasureLayer(*what, *microseconds, *fault) : CudaOutcome::kFailed;
}

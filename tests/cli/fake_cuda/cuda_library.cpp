// What libsparsefuse_cuda.so exports for the tool, without a GPU: where FAKE_GPU is set, to an
// architecture, there is one. By tiles of 128 outputs layers of more than 64 outputs take 10 µs,
// others 40 µs; by other tiles all take 20 µs. FAKE_GPU_FAILS: outputs of tiles that fail.
// FAKE_GPU_LOG: a file that gets a line for each measurement.

#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "kernels/plugin/cuda_measure.h"

using namespace sparsefuse::plugin;

namespace {

const char* Variable(const char* name) {
  const char* value = std::getenv(name);
  return value ? value : "";
}

CudaOutcome Failed(CudaFault* fault, const char* why, CudaOutcome outcome = CudaOutcome::kFailed) {
  std::snprintf(fault->data(), fault->size(), "%s", why);
  return outcome;
}

}  // namespace

extern "C" __attribute__((visibility("default"))) CudaOutcome SparsefuseFindCudaDevices(
    const char*, CudaDevices* devices, CudaFault* fault) {
  if (!*Variable("FAKE_GPU")) return Failed(fault, "no driver, in a test", CudaOutcome::kNoDevice);
  devices->count = 2;
  std::strcpy(devices->device[0].architecture, "sm_00");
  std::strcpy(devices->device[0].name, "Older Card");
  std::snprintf(devices->device[1].architecture, 16, "%.15s", Variable("FAKE_GPU"));
  std::strcpy(devices->device[1].name, "Imitated Card");
  return CudaOutcome::kDone;
}

extern "C" __attribute__((visibility("default"))) CudaOutcome SparsefuseMeasureCudaLayer(
    const char*, const CudaMeasurement* what, double* microseconds, CudaFault* fault) {
  const int outputs = what->tile_panels * 32;
  if (const char* log = Variable("FAKE_GPU_LOG"); *log) {
    std::FILE* file = std::fopen(log, "a");
    std::fprintf(file, "%dx%d %d rows by %d\n", static_cast<int>(what->shape.inputs),
                 static_cast<int>(what->shape.outputs), static_cast<int>(what->rows), outputs);
    std::fclose(file);
  }
  if (what->device != 1) return Failed(fault, "another device");
  char kernel[64];  // the end of its name, for "code" that is the source
  std::snprintf(kernel, sizeof kernel, "%dx%d_s0_dense_f32_t%d(",
                static_cast<int>(what->shape.inputs), static_cast<int>(what->shape.outputs),
                what->tile_panels);
  if (!std::strstr(static_cast<const char*>(what->code), kernel)) return Failed(fault, "no kernel");
  if (std::atoi(Variable("FAKE_GPU_FAILS")) == outputs) return Failed(fault, "out of luck");
  *microseconds = outputs != 128 ? 20 : what->shape.outputs > 64 ? 10 : 40;
  return CudaOutcome::kDone;
}

// The CUDA provider's operators without a GPU: over a CUDA runtime, kernels and an execution
// provider that are imitated on the host (the library's own code of kernels/plugin/cuda is real).
// What it can show: that the operator checks, copies, frees and passes on what it should. What not:
// anything about CUDA itself or ONNX Runtime's provider.

#ifndef SPARSEFUSE_TESTS_KERNELS_CUDA_FAKE_DEVICE_H_
#define SPARSEFUSE_TESTS_KERNELS_CUDA_FAKE_DEVICE_H_

#include <cuda_runtime_api.h>
#include <onnxruntime_cxx_api.h>

#include <cstddef>
#include <cstdint>
#include <set>
#include <string>
#include <vector>

#include "kernels/linear/activation.h"
#include "tests/kernels/node_model.h"

namespace sparsefuse::test {

inline constexpr int kFakeDevice = 3;             // the provider's, of compute capability 8.6; last
inline constexpr const char* kFakeCode = "code";  // the only image that loads; its tiles: 2 panels

struct FakeDevice {
  // What a test sets:
  std::string failing;          // the function that fails
  int64_t failing_after = 0;    // so many calls of it that do not
  size_t memory = SIZE_MAX;     // bytes that one allocation may have; more throws
  bool constants_there = true;  // weight, scale_code and bias are in the device's memory
  bool host_inputs_here = true;
  std::vector<float> run_times;  // milliseconds of the launches of layers; then 0

  // What it finds:
  int current = 0;                            // the thread's device
  std::set<void*> lent;                       // by the provider's allocator, not given back
  int64_t allocators = 0;                     // not released
  int64_t allocations = 0;                    // from the allocator, not as scratch
  int64_t waits = 0;                          // for a stream, or by a copy that waits
  int64_t launches = 0;                       // of layers
  cudaStream_t stream = nullptr;              // of the last launch
  bool made_kernels = false;                  // of the last launch: kernels made for the layer
  int32_t tile_panels = 0;                    // of the last prepared layer
  int64_t input_words = 0;                    // likewise
  int64_t rows = 0;                           // of the last launch
  bool half = false;                          // likewise
  Activation activation = Activation::kNone;  // likewise
  Activation sought_activation = Activation::kNone;  // that compiled code was last asked for
  bool sought_half = false;                          // likewise
  float clock = 0;                                   // milliseconds that launches took
  std::set<void*> allocated;                         // of the runtime, not given back
  int64_t events = 0;                                // not destroyed
  int64_t unloaded = 0;  // compiled code, when all memory was given back
};
// The one that there is.
FakeDevice& Device();

// What the provider's stream is.
cudaStream_t FakeStream();

// A session that runs the node by the CUDA operators.
Ort::Session LoadOnDevice(const NodeModel& model);

}  // namespace sparsefuse::test

#endif  // SPARSEFUSE_TESTS_KERNELS_CUDA_FAKE_DEVICE_H_

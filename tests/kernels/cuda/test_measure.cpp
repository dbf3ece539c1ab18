// Layers timed on a GPU, over an imitated one (fake_device.h): what is launched and given back, not
// how long anything takes.

#include <string>
#include <vector>

#include "kernels/plugin/cuda/measure.h"
#include "tests/kernels/cuda/fake_device.h"
#include "tests/kernels/linear_case.h"
#include "tests/support/catch.h"

namespace sparsefuse::test {
namespace {

using plugin::CudaFault;
using plugin::CudaMeasurement;
using plugin::CudaOutcome;

CudaMeasurement MeasurementOf(const LinearLayer& layer, int32_t tile_panels) {
  return {.device = kFakeDevice,
          .shape = layer.shape,
          .blocks = layer.weights().blocks,
          .activation = Activation::kNone,
          .half = false,
          .rows = 17,
          .tile_panels = tile_panels,
          .code = nullptr};
}

// A device whose 51 first runs take long, and of the 51 after them all but 26.
void Reset() {
  Device() = {};
  Device().run_times.assign(51, 100);
  for (int i = 0; i < 51; ++i) Device().run_times.push_back(i % 2 == 0 ? 0.03125f : 8);
}

// The message; "" where it worked and the time was right. Nothing may be left on the device.
std::string Measured(const CudaMeasurement& what) {
  double microseconds = -1;
  CudaFault fault{};
  const CudaOutcome outcome = plugin::MeasureLayer(what, microseconds, fault);
  CHECK(Device().allocated.empty());
  CHECK(Device().events == 0);
  if (outcome == CudaOutcome::kDone) {
    CHECK(microseconds == 31.25);
    return fault.data();
  }
  CHECK(outcome == CudaOutcome::kFailed);
  CHECK(microseconds == 0);
  CHECK(fault[0] != 0);
  return fault.data();
}

TEST_CASE("a layer's time is the median of 51 runs after as many, without waiting between them") {
  for (const bool sparse : {false, true}) {
    for (const bool half : {false, true}) {
      for (const int64_t scale_groups : {0, 1}) {
        const LinearLayer layer({150, 70, scale_groups, Encoding::kNested4, sparse}, 1);
        CudaMeasurement what = MeasurementOf(layer, sparse ? 1 : 4);
        what.half = half;
        what.activation = Activation::kGelu;
        what.rows = 19;
        INFO(sparse << half << scale_groups);
        Reset();
        CHECK(Measured(what) == "");
        CHECK(Device().launches == 102);
        CHECK(Device().waits == 4 + sparse);  // copies, for the layer prepared, for the last run
        CHECK(Device().tile_panels == what.tile_panels);
        CHECK_FALSE(Device().made_kernels);
        CHECK(Device().rows == 19);
        CHECK(Device().half == half);
        CHECK(Device().activation == Activation::kGelu);
      }
    }
  }
}

TEST_CASE("a layer is timed by the code that was compiled for it, or not at all") {
  const LinearLayer layer({150, 70, 0}, 1);
  CudaMeasurement what = MeasurementOf(layer, 2);  // what the imitated code has
  what.code = kFakeCode;
  Reset();
  CHECK(Measured(what) == "");
  CHECK(Device().made_kernels);
  CHECK(Device().tile_panels == 2);
  CHECK(Device().unloaded == 1);
  for (const int32_t panels : {4, 3}) {
    what.tile_panels = panels;
    Reset();
    CHECK(Measured(what) == "there is no kernel with such tiles for the layer");
    CHECK(Device().launches == 0);
  }
  what.code = "something else";
  CHECK_THAT(Measured(what), Catch::Contains("loading the code: a fault"));
}

TEST_CASE("whatever fails while a layer is timed is said, and the device gets all memory back") {
  const LinearLayer layer({64, 40, 0, Encoding::kInt8, true}, 1);
  CudaMeasurement what = MeasurementOf(layer, 1);
  for (const char* function :
       {"cudaSetDevice", "SuggestWorkers", "cudaMalloc", "cudaMemcpy", "cudaMemset", "Prepare",
        "cudaStreamSynchronize", "Linear", "cudaEventCreate", "cudaEventRecord",
        "cudaEventSynchronize", "cudaEventElapsedTime"}) {
    for (const int64_t after : {0, 1, 2, 5, 50, 51, 101}) {
      INFO(function << " after " << after);
      Reset();
      Device().failing = function;
      Device().failing_after = after;
      const std::string message = Measured(what);
      if (message.empty()) {
        CHECK(after > 0);
        CHECK(Device().failing_after >= 0);  // all calls succeeded
      } else {
        CHECK_THAT(message, Catch::Contains(": a fault (cudaErrorUnknown)"));
      }
    }
  }
  Reset();
  const LinearLayer dense({150, 70, 0}, 1);
  what = MeasurementOf(dense, 2);
  what.code = kFakeCode;
  Device().failing = "Load";
  CHECK_THAT(Measured(what), Catch::Contains("loading the code: a fault (cudaErrorUnknown)"));
  what.code = nullptr;
  Device() = {};  // whose launches take no time
  CHECK(Measured(what) == "the device's clock stands still");
  what.rows = int64_t{1} << 50;
  CHECK_THAT(Measured(what), Catch::Contains("allocating memory on the device: a fault"));
  Device() = {};
}

TEST_CASE("the GPUs that are here have the names of their architectures") {
  Device() = {};
  plugin::CudaDevices devices{};
  CudaFault fault{};
  REQUIRE(plugin::FindDevices(devices, fault) == CudaOutcome::kDone);
  REQUIRE(devices.count == kFakeDevice + 1);
  CHECK(std::string(devices.device[0].architecture) == "sm_90a");
  CHECK(std::string(devices.device[kFakeDevice].architecture) == "sm_86");
  CHECK(std::string(devices.device[kFakeDevice].name) == "Card 3");
  Device().failing = "cudaGetDeviceProperties";
  CHECK(plugin::FindDevices(devices, fault) == CudaOutcome::kFailed);
  CHECK_THAT(fault.data(), Catch::Contains("name: a fault"));
  Device().failing = "cudaGetDeviceCount";
  CHECK(plugin::FindDevices(devices, fault) == CudaOutcome::kNoDevice);
  CHECK(devices.count == 0);
  CHECK(std::string(fault.data()) == "a fault");
  Device() = {};
}

}  // namespace
}  // namespace sparsefuse::test

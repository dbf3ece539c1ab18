// The GPU's kernels, their own code, on the host against the format's definition and,
// bit for bit, the CPU's reference kernel: what they compute and which memory they touch, not how a
// GPU runs them. tests/cuda asks the same of a GPU, of larger layers, too.

#include <tuple>
#include <vector>

#include "tests/cuda/device_layer.h"
#include "tests/cuda/kernel_checks.h"
#include "tests/cuda/patterns.h"
#include "tests/cuda_on_host/compiled_layers.h"
#include "tests/cuda_on_host/device_on_host.h"
#include "tests/kernels/prepared_layer.h"
#include "tests/support/catch.h"

namespace sparsefuse::test {
namespace {

// One of each kind that few rows are treated differently on, with everything else turned round.
constexpr DeviceOnHost kDevices[] = {
    {.major = 8, .minor = 0, .shared_kib = 164},
    {.major = 8, .minor = 6, .shared_kib = 100, .copies_are_late = false, .last_first = true}};

TEST_CASE("kernels on the host meet the definition for odd sizes, patterns and encodings") {
  for (const DeviceOnHost& device : kDevices) {
    UseDeviceOnHost(device);
    for (const Encoding encoding : kEncodings) {
      for (const Pattern pattern : kPatterns) {
        for (const auto& [inputs, outputs] :
             {std::pair<int64_t, int64_t>{1, 1}, {63, 33}, {66, 129}, {260, 97}}) {
          for (const double density : {0.0, 0.5}) {
            if (pattern == Pattern::kDense && density != 0.5) continue;
            const LinearLayer layer =
                MakeLayer(encoding, pattern, inputs, outputs, density,
                          static_cast<uint32_t>(inputs + outputs), inputs % 2 == 1);
            INFO("capability " << device.major << "." << device.minor << ", pattern "
                               << static_cast<int>(pattern) << ", density " << density);
            const DeviceLayer ours(layer);
            for (const int64_t rows : {0, 1, 7, 9, 33}) {
              CheckDefinition(layer, {&ours}, rows);
            }
          }
        }
      }
    }
  }
}

TEST_CASE("kernels on the host take rows by the hundred, whatever panels share inputs") {
  UseDeviceOnHost(kDevices[0]);
  for (const Pattern pattern : kPatterns) {
    for (const int64_t rows : {130, 257}) {
      const LinearLayer layer = MakeLayer(Encoding::kInt8, pattern, 130, 70, 0.6, 4);
      INFO("pattern " << static_cast<int>(pattern));
      const DeviceLayer device(layer);
      CheckDefinition(layer, {&device}, rows);
    }
  }
}

TEST_CASE("kernels of compute capability 9.0 on the host meet the definition") {
  for (const Encoding encoding : kEncodings) {
    for (const Pattern pattern : {Pattern::kDense, Pattern::kRuns64, Pattern::kRuns128}) {
      for (const int64_t scale_groups : {0, 3}) {
        if (scale_groups > 0 && pattern != Pattern::kDense) continue;
        for (const auto& [inputs, outputs, rows] :
             {std::tuple<int64_t, int64_t, int64_t>{66, 129, 20}, {600, 70, 257}}) {
          LinearLayer layer = scale_groups > 0
                                  ? LinearLayer({inputs, outputs, scale_groups, encoding}, 3)
                                  : MakeLayer(encoding, pattern, inputs, outputs, 0.5, 4);
          INFO("pattern " << static_cast<int>(pattern));
          for (const bool last_first : {false, true}) {
            UseDeviceOnHost({.major = 9, .minor = 0, .shared_kib = 228, .last_first = last_first});
            const DeviceLayer device(layer);
            REQUIRE(device.layer().is_sm90);
            CheckDefinition(layer, {&device}, rows);
          }
        }
      }
    }
  }
}

TEST_CASE("kernels made for a layer give the bits of the library's own on the host") {
  UseDeviceOnHost({.major = 9, .minor = 0, .shared_kib = 228});
  cuda::Code code;
  SPARSEFUSE_CHECK_CUDA(code.Load(nullptr));
  for (const LinearLayer& layer : LayersOnHost()) {
    for (const bool half : {false, true}) {
      const DeviceLayer made(layer, code, kCompiledActivation, half), own(layer);
      REQUIRE(made.layer().made.prefill);
      for (const int64_t rows : {3, 9, 140}) {
        if (half && rows == 9) continue;
        INFO("encoding " << static_cast<int>(layer.shape.encoding) << ", sparse "
                         << layer.shape.sparse << ", scale groups " << layer.shape.scale_groups
                         << ", half " << half << ", rows " << rows);
        const std::vector<float> x = RandomRows(rows, layer.shape.inputs, 3);
        CHECK((made.Run(x, rows, half, kCompiledActivation) ==
               own.Run(x, rows, half, kCompiledActivation)));
      }
    }
  }
}

TEST_CASE("kernels on the host take a row of scales for every few groups") {
  for (const DeviceOnHost& device : kDevices) {
    UseDeviceOnHost(device);
    for (const Encoding encoding : {Encoding::kInt4, Encoding::kNested4}) {
      for (const bool sparse : {false, true}) {
        for (const int64_t scale_groups : {1, 3}) {
          const LinearLayer layer({700, 140, scale_groups, encoding, sparse}, 3, true, 0.6);
          for (const int64_t rows : {1, 9, 20}) {
            INFO("capability " << device.major << "." << device.minor);
            const DeviceLayer ours(layer, 5);
            CheckDefinition(layer, {&ours}, rows);
          }
        }
      }
    }
  }
}

TEST_CASE("integer sums on the host are the CPU's kernel's, however the work is cut") {
  for (const DeviceOnHost& device : kDevices) {
    UseDeviceOnHost(device);
    for (const Encoding encoding : kEncodings) {
      for (const Pattern pattern : {Pattern::kDense, Pattern::kQuads, Pattern::kRuns128}) {
        LinearLayer layer = MakeLayer(encoding, pattern, 600, 100, 0.5, 9);
        MakeIntegral(layer);
        for (const int64_t rows : {3, 14}) {
          const std::vector<float> x = IntegralRows(rows, 600);
          const std::vector<float> expected = PreparedLayer(Reference(), layer).Run(x, rows);
          for (const int32_t workers : {1, 7}) {
            INFO("capability " << device.major << "." << device.minor << ", encoding "
                               << static_cast<int>(encoding) << ", pattern "
                               << static_cast<int>(pattern) << ", rows " << rows << ", workers "
                               << workers);
            const DeviceLayer ours(layer, workers);
            REQUIRE((ours.Run(x, rows) == expected));
          }
        }
      }
    }
  }
}

TEST_CASE("kernels on the host apply activations, in both element types") {
  UseDeviceOnHost(kDevices[0]);
  for (const int64_t rows : {3, 20}) CheckActivations({140, 70}, rows);
}

TEST_CASE("on the host a row with NaN or Inf is all NaN, and no other row changes") {
  UseDeviceOnHost(kDevices[1]);
  for (const int64_t rows : {8, 20}) CheckSpecialRows({130, 50}, rows);
}

TEST_CASE("kernels on the host read easy rows of nested layers in 4 bits and count them") {
  for (const DeviceOnHost& device : kDevices) {
    UseDeviceOnHost(device);
    for (const Encoding encoding : {Encoding::kNested1, Encoding::kNested4}) {
      for (const int64_t sketch_rows : {0, 3}) {
        const LinearLayer layer = GatedLayer(encoding, sketch_rows > 0, sketch_rows);
        const DeviceLayer ours(layer, 7);  // panels in several slices
        INFO("capability " << device.major << "." << device.minor);
        for (const int64_t rows : {1, 13, 20}) CheckEasyRows(layer, ours, rows);
      }
    }
  }
}

TEST_CASE("a layer without a gate on the host does not ask when gates judge") {
  UseDeviceOnHost(kDevices[0]);
  for (const Encoding encoding : {Encoding::kInt8, Encoding::kNested4}) {
    const LinearLayer layer({200, 70, 0, encoding}, 21);
    const DeviceLayer ours(layer);
    for (const int64_t rows : {3, 20}) {
      const std::vector<float> x = RandomRows(rows, 200, 3);
      CHECK((ours.Run(x, rows, false, Activation::kNone, GateMode::kAlways) == ours.Run(x, rows)));
    }
  }
}

}  // namespace
}  // namespace sparsefuse::test

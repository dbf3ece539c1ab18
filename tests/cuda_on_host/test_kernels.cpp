// The GPU's kernels, their own code, on threads of the host against the format's definition and,
// bit for bit, the CPU's reference kernel: what they compute and which memory they touch, not how a
// GPU runs them. tests/cuda asks the same of a GPU, of more and larger layers.

#include <algorithm>
#include <cmath>
#include <limits>
#include <tuple>
#include <vector>

#include "tests/cuda/device_layer.h"
#include "tests/cuda/patterns.h"
#include "tests/cuda_on_host/compiled_layers.h"
#include "tests/cuda_on_host/device_on_host.h"
#include "tests/kernels/prepared_layer.h"
#include "tests/support/catch.h"

namespace sparsefuse::test {
namespace {

// One of each kind that few rows are treated differently on, with everything else turned round.
constexpr DeviceOnHost kDevices[] = {{.major = 8, .minor = 0, .shared_kib = 164},
                                     {.major = 8,
                                      .minor = 6,
                                      .shared_kib = 100,
                                      .copies_are_late = false,
                                      .last_block_first = true}};

TEST_CASE("kernels on the host meet the definition for odd sizes, patterns and encodings") {
  for (const DeviceOnHost& device : kDevices) {
    UseDeviceOnHost(device);
    for (const Encoding encoding : kEncodings) {
      for (const Pattern pattern : kPatterns) {
        for (const auto& [inputs, outputs, rows] :
             {std::tuple<int64_t, int64_t, int64_t>{1, 1, 1}, {66, 129, 9}, {260, 97, 19}}) {
          if (rows > 16 && device.minor > 0) continue;  // all devices' alike
          const LinearLayer layer =
              MakeLayer(encoding, pattern, inputs, outputs, 0.5,
                        static_cast<uint32_t>(inputs + outputs), inputs % 2 == 1);
          INFO("capability " << device.major << "." << device.minor << ", encoding "
                             << static_cast<int>(encoding) << ", pattern "
                             << static_cast<int>(pattern) << ", K " << inputs << ", N " << outputs
                             << ", rows " << rows);
          const std::vector<float> x = RandomRows(rows, inputs, 5);
          CheckAgainst(ExactLinear(layer, x, rows), DeviceLayer(layer).Run(x, rows));
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
      INFO("pattern " << static_cast<int>(pattern) << ", rows " << rows);
      const std::vector<float> x = RandomRows(rows, 130, 7);
      CheckAgainst(ExactLinear(layer, x, rows), DeviceLayer(layer).Run(x, rows));
    }
  }
}

TEST_CASE("kernels of compute capability 9.0 on the host meet the definition") {
  UseDeviceOnHost({.major = 9, .minor = 0, .shared_kib = 228});
  for (const Encoding encoding : kEncodings) {
    for (const Pattern pattern : {Pattern::kDense, Pattern::kRuns64, Pattern::kRuns128}) {
      for (const int64_t scale_groups : {0, 3}) {
        if (scale_groups > 0 && pattern != Pattern::kDense) continue;
        for (const auto& [inputs, outputs, rows] :
             {std::tuple<int64_t, int64_t, int64_t>{66, 129, 20}, {600, 70, 257}}) {
          LinearLayer layer = scale_groups > 0
                                  ? LinearLayer({inputs, outputs, scale_groups, encoding}, 3)
                                  : MakeLayer(encoding, pattern, inputs, outputs, 0.5, 4);
          INFO("encoding " << static_cast<int>(encoding) << ", pattern "
                           << static_cast<int>(pattern) << ", groups " << scale_groups << ", K "
                           << inputs << ", N " << outputs << ", rows " << rows);
          const DeviceLayer device(layer);
          REQUIRE(device.layer().is_sm90);
          const std::vector<float> x = RandomRows(rows, inputs, 7);
          CheckAgainst(ExactLinear(layer, x, rows), device.Run(x, rows));
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
            if (rows > 16 && device.minor > 0) continue;  // all devices' alike
            INFO("capability " << device.major << "." << device.minor << ", encoding "
                               << static_cast<int>(encoding) << ", sparse " << sparse << ", groups "
                               << scale_groups << ", rows " << rows);
            const std::vector<float> x = RandomRows(rows, 700, 6);
            CheckAgainst(ExactLinear(layer, x, rows), DeviceLayer(layer, 5).Run(x, rows));
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
        layer.scale_base = 1;
        std::fill(layer.scale_code.begin(), layer.scale_code.end(), uint8_t{0});
        std::fill(layer.bias.begin(), layer.bias.end(), 0.0f);
        for (const int64_t rows : {3, 14}) {
          std::vector<float> x = RandomRows(rows, 600, 10);
          for (float& v : x) v = std::clamp(v * 50, -127.0f, 127.0f);
          for (int64_t r = 0; r < rows; ++r) x[static_cast<size_t>(r * 600)] = 127;  // s = 1
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

TEST_CASE("kernels on the host that skip zeros give the CPU's integers") {
  UseDeviceOnHost(kDevices[0]);
  for (const Encoding encoding : {Encoding::kInt8, Encoding::kInt4}) {
    LinearLayer layer({1100, 290, 0, encoding}, 9);
    layer.scale_base = 1;
    std::fill(layer.scale_code.begin(), layer.scale_code.end(), uint8_t{0});
    std::fill(layer.bias.begin(), layer.bias.end(), 0.0f);
    layer.shape.zero_inputs = 1;  // skipped at any number of rows
    for (const int64_t rows : {1, 3, 6, 14}) {
      std::vector<float> x = RandomRows(rows, 1100, 10);
      for (size_t i = 0; i < x.size(); ++i) {
        x[i] = i % 7 == 0 ? std::clamp(x[i] * 50, -127.0f, 127.0f) : 0;
      }
      for (int64_t r = 0; r < rows; ++r) x[static_cast<size_t>(r * 1100)] = 127;  // s = 1
      const DeviceLayer device(layer);
      REQUIRE(device.layer().input_words);
      INFO("encoding " << static_cast<int>(encoding) << ", rows " << rows);
      REQUIRE((device.Run(x, rows) == PreparedLayer(Reference(), layer).Run(x, rows)));
    }
  }
}

TEST_CASE("kernels on the host apply activations, in both element types") {
  UseDeviceOnHost(kDevices[0]);
  for (const Activation activation : kActivations) {
    const LinearLayer layer({140, 70}, 12);
    const DeviceLayer device(layer);
    for (const int64_t rows : {3, 20}) {
      INFO(ActivationName(activation) << ", rows " << rows);
      const std::vector<float> x = RandomRows(rows, 140, 8);
      CheckAgainst(ExactLinear(layer, x, rows, {}, activation),
                   device.Run(x, rows, false, activation));
      Exact exact = ExactLinear(layer, RoundToHalf(x), rows, {}, activation);
      for (size_t i = 0; i < exact.y.size(); ++i) {
        exact.bound[i] += std::fabs(exact.y[i]) * 0x1p-11 + 0x1p-25;
      }
      CheckAgainst(exact, device.Run(x, rows, true, activation));
    }
  }
}

TEST_CASE("on the host a row with NaN or Inf is all NaN, and no other row changes") {
  UseDeviceOnHost(kDevices[1]);
  const LinearLayer layer({130, 50}, 2);
  const DeviceLayer device(layer);
  for (const int64_t rows : {8, 20}) {
    std::vector<float> x = RandomRows(rows, 130, 3);
    const std::vector<float> before = device.Run(x, rows);
    x[130 + 5] = std::numeric_limits<float>::quiet_NaN();
    x[2 * 130 + 129] = -std::numeric_limits<float>::infinity();
    const std::vector<float> y = device.Run(x, rows);
    for (size_t i = 0; i < y.size(); ++i) {
      const size_t row = i / 50;
      INFO("row " << row << ", output " << i % 50);
      if (row == 1 || row == 2) {
        REQUIRE(std::isnan(y[i]));
      } else {
        REQUIRE(y[i] == before[i]);
      }
    }
  }
}

TEST_CASE("kernels on the host read easy rows of nested layers in 4 bits and count them") {
  for (const DeviceOnHost& device : kDevices) {
    UseDeviceOnHost(device);
    for (const Encoding encoding : {Encoding::kNested1, Encoding::kNested4}) {
      for (const float sketch_rows : {0.0f, 3.0f}) {
        LinearLayer layer({200, 70, 0, encoding, sketch_rows > 0}, 21, true, 0.5);
        layer.gate = {1, 0, 1, sketch_rows};
        const std::vector<float> sketch = RandomRows(static_cast<int64_t>(sketch_rows), 200, 22);
        layer.gate.insert(layer.gate.end(), sketch.begin(), sketch.end());
        const DeviceLayer ours(layer, 7);  // panels in several slices
        for (const int64_t rows : {1, 13, 20}) {
          std::vector<float> x = RandomRows(rows, 200, 23);
          std::vector<bool> easy;
          for (int64_t r = 0; r < rows; ++r) {
            easy.push_back(r % 3 != 1);
            for (int64_t k = 0; k < 200 && easy.back(); ++k) {
              x[static_cast<size_t>(r * 200 + k)] *= 1e-3f;
            }
          }
          INFO("capability " << device.major << "." << device.minor << ", encoding "
                             << static_cast<int>(encoding) << ", sketch " << sketch_rows
                             << ", rows " << rows);
          int64_t counted = 0;
          CheckAgainst(ExactLinear(layer, x, rows, easy),
                       ours.Run(x, rows, false, Activation::kNone, GateMode::kAlways, &counted));
          REQUIRE(counted == std::count(easy.begin(), easy.end(), true));
          CheckAgainst(ExactLinear(layer, x, rows), ours.Run(x, rows));
        }
      }
    }
  }
}

}  // namespace
}  // namespace sparsefuse::test

// The kernel that reads only the weights of inputs that are not 0, on the host.

#include <limits>
#include <tuple>
#include <vector>

#include "tests/cuda/kernel_checks.h"
#include "tests/cuda_on_host/device_on_host.h"
#include "tests/kernels/prepared_layer.h"
#include "tests/support/catch.h"

namespace sparsefuse::test {
namespace {

TEST_CASE("Skipping zeros meets the definition for odd sizes, scales and numbers of rows") {
  for (const bool last_first : {false, true}) {
    UseDeviceOnHost({.last_first = last_first});
    for (const Encoding encoding : {Encoding::kInt8, Encoding::kInt4}) {
      for (const auto& [inputs, outputs, scale_groups, rows] :
           {std::tuple<int64_t, int64_t, int64_t, int64_t>{1, 1, 0, 1},
            {63, 33, 0, 3},
            {64, 128, 0, 4},
            {515, 129, 0, 5},
            {1100, 300, 8, 1},
            {1100, 257, 9, 16},
            {1290, 97, 12, 8}}) {
        const LinearLayer layer =
            SkippingLayer({inputs, outputs, scale_groups, encoding}, inputs % 2 == 1);
        const DeviceLayer device(layer);
        REQUIRE(device.layer().input_words);
        for (const double zeros : {0.0, 0.6, 0.97, 1.0}) {
          if (last_first != (zeros > 0.9)) continue;
          INFO("encoding " << static_cast<int>(encoding) << ", K " << inputs << ", N " << outputs
                           << ", groups a scale " << scale_groups << ", rows " << rows << ", zeros "
                           << zeros);
          const std::vector<float> x = SparseRows(rows, inputs, zeros, 11);
          CheckAgainst(ExactLinear(layer, x, rows), device.Run(x, rows));
        }
      }
    }
  }
}

TEST_CASE("Skipping zeros gives the integer sums of the CPU's reference kernel") {
  UseDeviceOnHost({});
  for (const Encoding encoding : {Encoding::kInt8, Encoding::kInt4}) {
    for (const int64_t rows : {1, 3, 6, 14}) CheckSkippingSums({1100, 290, 0, encoding}, rows);
  }
}

TEST_CASE("Skipping zeros applies activations and keeps a row with NaN to itself") {
  UseDeviceOnHost({});
  const LinearLayer layer = SkippingLayer({300, 100});
  const DeviceLayer device(layer);
  for (const Activation activation : kActivations) {
    std::vector<float> x = SparseRows(3, 300, 0.9, 8);
    x[300 + 17] = std::numeric_limits<float>::quiet_NaN();
    CheckAgainst(ExactLinear(layer, x, 3, {}, activation), device.Run(x, 3, false, activation));
  }
}

TEST_CASE("Zeros are skipped where at least half of the inputs are expected to be 0 in all rows") {
  LinearShape shape{.inputs = 100, .outputs = 100};
  CHECK_FALSE(cuda::SkipsZeros(shape, 1));
  shape.zero_inputs = 0.49f;
  CHECK_FALSE(cuda::SkipsZeros(shape, 1));
  CHECK(cuda::MakePlan(shape, {}, 4).input_words == 0);
  shape.zero_inputs = 0.9f;
  CHECK(cuda::SkipsZeros(shape, 1));
  CHECK(cuda::SkipsZeros(shape, 6));
  CHECK_FALSE(cuda::SkipsZeros(shape, 7));  // 0.9⁷ = 0.48
  CHECK(cuda::MakePlan(shape, {}, 4).input_words == 100 * 32);
  shape.outputs = 129;
  CHECK(cuda::MakePlan(shape, {}, 4).input_words == 2 * 100 * 32);
  shape.encoding = Encoding::kInt4;
  CHECK(cuda::MakePlan(shape, {}, 4).input_words == 100 * 32);
  shape.scale_groups = 8;
  CHECK(cuda::SkipsZeros(shape, 1));
  shape.scale_groups = 7;
  CHECK_FALSE(cuda::SkipsZeros(shape, 1));
  shape.scale_groups = 0;
  shape.encoding = Encoding::kNested4;
  CHECK_FALSE(cuda::SkipsZeros(shape, 1));
  shape.encoding = Encoding::kInt8;
  shape.sparse = true;
  CHECK_FALSE(cuda::SkipsZeros(shape, 1));
}

}  // namespace
}  // namespace sparsefuse::test

// The benchmarks' way without our kernels (tests/bench/dequantise.h) writes the weights that
// UnpackWeights finds.

#include <cuda_fp16.h>

#include <algorithm>
#include <cstdint>
#include <vector>

#include "tests/bench/dequantise.h"
#include "tests/cuda/device_layer.h"
#include "tests/cuda/has_device.h"
#include "tests/cuda/patterns.h"
#include "tests/support/catch.h"

namespace sparsefuse::test {
namespace {

// What a job points to, in host memory.
struct HostJob {
  HostJob(const LinearLayer& layer, bool high_only)
      : plan(cuda::MakePlan(layer.shape, layer.weights().blocks, 1)) {
    for (const uint8_t code : layer.scale_code) {
      scale.push_back(DecodeScale(layer.scale_base, code));
    }
    job = {.encoding = layer.shape.encoding,
           .high_only = high_only,
           .inputs = layer.shape.inputs,
           .outputs = layer.shape.outputs,
           .scale_groups = layer.shape.scale_groups,
           .weight = layer.packed.data(),
           .plane_bytes = layer.groups() * PlaneBytes(layer.shape.encoding),
           .quad = layer.shape.sparse ? layer.quad.data() : nullptr,
           .group_ptr = plan.group_ptr.data(),
           .scale_ptr = plan.scale_ptr.data(),
           .scale = scale.data()};
  }
  cuda::Plan plan;
  std::vector<float> scale;
  DequantiseJob job;
};

// [N, K], by way of UnpackWeights. Weights that are not stored are 0 whatever their reading.
std::vector<float> Expected(const LinearLayer& layer, const cuda::Plan& plan, bool high_only) {
  const LinearShape& shape = layer.shape;
  std::vector<int8_t> codes(static_cast<size_t>(shape.inputs * shape.outputs));
  UnpackWeights(shape.encoding, layer.weights().blocks, layer.packed, shape.inputs, shape.outputs,
                codes);
  std::vector<float> weights(codes.size());
  for (int64_t n = 0; n < shape.outputs; ++n) {
    const auto panel = static_cast<size_t>(n / 32);
    for (int64_t g = plan.group_ptr[panel]; g < plan.group_ptr[panel + 1]; ++g) {
      const int64_t of_panel = g - plan.group_ptr[panel];
      const int64_t row =
          plan.scale_ptr[panel] + (shape.scale_groups == 0 ? 0 : of_panel / shape.scale_groups);
      const float scale =
          DecodeScale(layer.scale_base, layer.scale_code[static_cast<size_t>(row * 32 + n % 32)]);
      for (int64_t q = 0; q < 16; ++q) {
        const int64_t quad =
            shape.sparse ? layer.quad[static_cast<size_t>(g * 16 + q)] : of_panel * 16 + q;
        for (int64_t k = quad * 4; k < std::min(quad * 4 + 4, shape.inputs); ++k) {
          const auto at = static_cast<size_t>(n * shape.inputs + k);
          weights[at] =
              scale * static_cast<float>(high_only ? DecodeHigh(shape.encoding, codes[at])
                                                   : DecodeWeight(shape.encoding, codes[at]));
        }
      }
    }
  }
  return weights;
}

template <typename Body>
void ForEachLayer(const Body& body) {
  for (const Encoding encoding : kEncodings) {
    for (const Pattern pattern : kPatterns) {
      for (const int64_t scale_groups : {0, 3}) {
        if (scale_groups != 0 && pattern != Pattern::kDense && pattern != Pattern::kQuads) continue;
        LinearLayer layer =
            scale_groups == 0
                ? MakeLayer(encoding, pattern, 516, 135, 0.4, 5)
                : LinearLayer({516, 135, scale_groups, encoding, pattern == Pattern::kQuads}, 5);
        layer.scale_base = 1e-5f;  // ordinary float16 numbers
        for (const bool high_only : {false, true}) {
          if (high_only && !IsNested(encoding)) continue;
          INFO("encoding " << static_cast<int>(encoding) << ", pattern "
                           << static_cast<int>(pattern) << ", scale groups " << scale_groups
                           << ", first plane alone " << high_only);
          body(layer, high_only);
        }
      }
    }
  }
}

TEST_CASE("dequantising for the baseline: each stored weight is written once, and nothing else") {
  ForEachLayer([](const LinearLayer& layer, bool high_only) {
    const HostJob host(layer, high_only);
    std::vector<float> weights(layer.codes.size());
    std::vector<int> written(layer.codes.size());
    for (int64_t panel = 0; panel < layer.shape.panels(); ++panel) {
      for (int64_t group = host.job.group_ptr[panel]; group < host.job.group_ptr[panel + 1];
           ++group) {
        for (int item = 0; item < kGroupItems; ++item) {
          DequantisedQuad quad;
          if (!DequantiseQuad(host.job, panel, group, item, &quad)) continue;
          for (int k = 0; k < 4; ++k) {
            const auto at = static_cast<size_t>(quad.output * layer.shape.inputs + quad.input + k);
            weights.at(at) = quad.weight[k];
            ++written[at];
          }
        }
      }
    }
    REQUIRE(weights == Expected(layer, host.plan, high_only));
    const auto [least, most] = std::minmax_element(written.begin(), written.end());
    REQUIRE(*most == 1);
    REQUIRE(*least == (layer.shape.sparse ? 0 : 1));
  });
}

TEST_CASE("dequantising for the baseline: the GPU's kernel writes the same, in float16") {
  if (!HasDevice()) return;
  ForEachLayer([](const LinearLayer& layer, bool high_only) {
    const HostJob host(layer, high_only);
    const DeviceArray<std::byte> weight(layer.packed);
    const DeviceArray<uint16_t> quad(layer.quad);
    const DeviceArray<int32_t> group_ptr(host.plan.group_ptr), scale_ptr(host.plan.scale_ptr);
    const DeviceArray<float> scale(host.scale);
    DequantiseJob job = host.job;
    job.weight = weight.get();
    if (job.quad) job.quad = quad.get();
    job.group_ptr = group_ptr.get();
    job.scale_ptr = scale_ptr.get();
    job.scale = scale.get();
    DeviceArray<__half> matrix(layer.codes.size());
    matrix.Fill(0);
    SPARSEFUSE_CHECK_CUDA(LaunchDequantise(job, matrix.get(), nullptr));
    SPARSEFUSE_CHECK_CUDA(cudaDeviceSynchronize());
    const std::vector<__half> weights = matrix.Read();
    const std::vector<float> expected = Expected(layer, host.plan, high_only);
    size_t wrong = 0;
    for (size_t i = 0; i < weights.size(); ++i) {
      wrong += __half2float(weights[i]) != __half2float(__float2half_rn(expected[i]));
    }
    REQUIRE(wrong == 0);
  });
}

}  // namespace
}  // namespace sparsefuse::test

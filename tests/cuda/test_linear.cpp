// Every kernel on the GPU against the format's own definition, and the integers against the CPU's
// reference kernel, bit for bit. Without a GPU each test says so and passes.

#include <algorithm>
#include <tuple>
#include <vector>

#include "tests/cuda/device_layer.h"
#include "tests/cuda/has_device.h"
#include "tests/cuda/kernel_checks.h"
#include "tests/cuda/patterns.h"
#include "tests/kernels/prepared_layer.h"
#include "tests/support/catch.h"

namespace sparsefuse::test {
namespace {

TEST_CASE("GPU kernels meet the definition for odd sizes, patterns and encodings") {
  if (!HasDevice()) return;
  for (const Encoding encoding : kEncodings) {
    for (const Pattern pattern : kPatterns) {
      for (const auto& [inputs, outputs] : {std::pair<int64_t, int64_t>{1, 1},
                                            {63, 33},
                                            {64, 32},
                                            {66, 129},
                                            {260, 97},
                                            {1000, 70}}) {
        for (const double density : {0.0, 0.1, 0.5, 1.0}) {
          if (pattern == Pattern::kDense && density != 0.5) continue;
          const LinearLayer layer =
              MakeLayer(encoding, pattern, inputs, outputs, density,
                        static_cast<uint32_t>(inputs + outputs), inputs % 2 == 1);
          const DeviceLayer device(layer), portable(layer, 0, KernelSet::kPortable);
          for (const int64_t rows : {0, 1, 2, 7, 8, 9, 16, 17, 33, 257}) {
            if (rows > 33 && inputs > 300) continue;  // slow to judge
            INFO("pattern " << static_cast<int>(pattern) << ", density " << density);
            CheckDefinition(layer, {&device, &portable}, rows);
          }
        }
      }
    }
  }
}

TEST_CASE("GPU kernels meet the definition with a row of scales for every few groups") {
  if (!HasDevice()) return;
  for (const Encoding encoding : kEncodings) {
    for (const bool sparse : {false, true}) {
      for (const int64_t scale_groups : {1, 3, 8}) {
        const LinearLayer layer({1500, 173, scale_groups, encoding, sparse}, 3, true, 0.6);
        for (const int32_t workers : {0, 5}) {
          const DeviceLayer device(layer, workers), portable(layer, workers, KernelSet::kPortable);
          for (const int64_t rows : {1, 9, 17, 40, 129, 300}) {
            if (rows > 40 && (encoding != Encoding::kInt4 || workers != 0))
              continue;  // slow to judge
            CheckDefinition(layer, {&device, &portable}, rows);
          }
        }
      }
    }
  }
}

TEST_CASE("GPU integer sums are the CPU's, however the work is cut") {
  if (!HasDevice()) return;
  for (const Encoding encoding : kEncodings) {
    for (const Pattern pattern : kPatterns) {
      LinearLayer layer = MakeLayer(encoding, pattern, 2000, 290, 0.5, 9);
      MakeIntegral(layer);
      for (const int64_t rows : {3, 14, 50}) {
        const std::vector<float> x = IntegralRows(rows, 2000);
        const std::vector<float> expected = PreparedLayer(Reference(), layer).Run(x, rows);
        for (const int32_t workers : {0, 1, 7, 100, 100000}) {
          INFO("encoding " << static_cast<int>(encoding) << ", pattern "
                           << static_cast<int>(pattern) << ", rows " << rows << ", workers "
                           << workers);
          REQUIRE((DeviceLayer(layer, workers).Run(x, rows) == expected));
          REQUIRE((DeviceLayer(layer, workers, KernelSet::kPortable).Run(x, rows) == expected));
        }
      }
    }
  }
}

TEST_CASE("GPU kernels that skip zeros meet the definition and give the CPU's integers") {
  if (!HasDevice()) return;
  for (const Encoding encoding : {Encoding::kInt8, Encoding::kInt4}) {
    for (const auto& [inputs, outputs, scale_groups] :
         {std::tuple<int64_t, int64_t, int64_t>{1, 1, 0},
          {63, 33, 0},
          {515, 129, 8},
          {1100, 300, 8},
          {4000, 1025, 0}}) {
      const LinearLayer layer =
          SkippingLayer({inputs, outputs, scale_groups, encoding}, inputs % 2 == 1);
      const DeviceLayer device(layer);
      REQUIRE(device.layer().input_words);
      for (const int64_t rows : {1, 3, 4, 7, 8, 9, 16, 17}) {
        for (const double zeros : {0.0, 0.9, 0.98, 1.0}) {
          INFO("encoding " << static_cast<int>(encoding) << ", K " << inputs << ", N " << outputs
                           << ", groups " << scale_groups << ", rows " << rows << ", zeros "
                           << zeros);
          const std::vector<float> x = SparseRows(rows, inputs, zeros, 6);
          CheckAgainst(ExactLinear(layer, x, rows), device.Run(x, rows));
        }
      }
    }
    for (const int64_t rows : {1, 6, 14}) CheckSkippingSums({3000, 290, 0, encoding}, rows);
  }
}

TEST_CASE("GPU sums of the largest codes over many inputs do not overflow") {
  if (!HasDevice()) return;
  for (const Encoding encoding : kEncodings) {
    LinearLayer layer({kMaxInputs, 33, 0, encoding}, 1);
    std::fill(layer.codes.begin(), layer.codes.end(),
              encoding == Encoding::kInt4 ? int8_t{-8} : int8_t{-128});
    layer.Pack();
    for (const int64_t rows : {1, 20}) {
      const std::vector<float> x(static_cast<size_t>(rows * kMaxInputs), 1.0f);
      INFO("encoding " << static_cast<int>(encoding) << ", rows " << rows);
      CheckAgainst(ExactLinear(layer, x, rows), DeviceLayer(layer).Run(x, rows));
    }
  }
}

TEST_CASE("GPU kernels take thousands of rows") {
  if (!HasDevice()) return;
  for (const Pattern pattern : kPatterns) {
    const LinearLayer layer = MakeLayer(Encoding::kInt8, pattern, 128, 256, 0.5, 4);
    for (const int64_t rows : {1000, 4096}) {
      INFO("pattern " << static_cast<int>(pattern));
      const DeviceLayer device(layer);
      CheckDefinition(layer, {&device}, rows);
    }
  }
}

TEST_CASE("GPU kernels apply activations, in both element types") {
  if (!HasDevice()) return;
  for (const int64_t rows : {3, 30}) CheckActivations({300, 100}, rows);
}

TEST_CASE(
    "on the GPU a row with NaN or Inf is all NaN, a row of zeros is the bias, and no other "
    "row changes") {
  if (!HasDevice()) return;
  for (const int64_t rows : {8, 40}) CheckSpecialRows({130, 50}, rows);
}

TEST_CASE("the GPU reads easy rows of nested layers in 4 bits and counts them") {
  if (!HasDevice()) return;
  for (const Encoding encoding : {Encoding::kNested1, Encoding::kNested4}) {
    for (const bool sparse : {false, true}) {
      for (const int64_t sketch_rows : {0, 3}) {
        const LinearLayer some = GatedLayer(encoding, sparse, sketch_rows),
                          all = GatedLayer(encoding, sparse, sketch_rows, 1e9f);
        const DeviceLayer device(some), portable(some, 0, KernelSet::kPortable), all_easy(all);
        for (const int64_t rows : {1, 8, 13, 40}) {
          CheckEasyRows(some, device, rows);
          CheckEasyRows(some, portable, rows);
          const std::vector<float> x = RandomRows(rows, all.shape.inputs, 23);
          const std::vector<bool> easy(static_cast<size_t>(rows), true);
          CheckAgainst(ExactLinear(all, x, rows, easy),
                       all_easy.Run(x, rows, false, Activation::kNone, GateMode::kAlways));
        }
      }
    }
  }
}

// Two layers feed each other on one stream, with one workspace, so that each launch may start while
// the one before ends; then the same from a captured graph.
TEST_CASE("GPU launches that overlap give what separate ones do") {
  if (!HasDevice()) return;
  LinearLayer there({512, 768}, 41), back({768, 512}, 42);
  for (LinearLayer* layer : {&there, &back}) {  // values neither grow nor die
    std::fill(layer->scale_code.begin(), layer->scale_code.end(), uint8_t{0});
    layer->scale_base = 2.5e-4f;
  }
  const DeviceLayer first(there), second(back);
  for (const int64_t rows : {1, 8, 40, 300}) {
    INFO("rows " << rows);
    std::vector<float> x = RandomRows(rows, 512, 43);
    const DeviceArray<float> start(x);
    constexpr int kTurns = 25;
    for (int i = 0; i < kTurns; ++i) x = second.Run(first.Run(x, rows), rows);

    const DeviceArray<float> a(x.size()), b(static_cast<size_t>(rows * 768));
    const DeviceArray<std::byte> workspace(std::max(cuda::WorkspaceBytes(first.layer(), rows),
                                                    cuda::WorkspaceBytes(second.layer(), rows)));
    cudaStream_t stream;
    SPARSEFUSE_CHECK_CUDA(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    const auto turns = [&] {
      SPARSEFUSE_CHECK_CUDA(cudaMemcpyAsync(a.get(), start.get(), x.size() * sizeof(float),
                                            cudaMemcpyDeviceToDevice, stream));
      for (int i = 0; i < kTurns; ++i) {
        const cuda::Run to{.rows = rows, .x = a.get(), .y = b.get(), .workspace = workspace.get()};
        const cuda::Run fro{.rows = rows, .x = b.get(), .y = a.get(), .workspace = workspace.get()};
        SPARSEFUSE_CHECK_CUDA(cuda::Linear(first.layer(), to, stream));
        SPARSEFUSE_CHECK_CUDA(cuda::Linear(second.layer(), fro, stream));
      }
    };
    turns();
    SPARSEFUSE_CHECK_CUDA(cudaStreamSynchronize(stream));
    REQUIRE((a.Read() == x));

    cudaGraph_t graph;
    cudaGraphExec_t replay;
    SPARSEFUSE_CHECK_CUDA(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    turns();
    SPARSEFUSE_CHECK_CUDA(cudaStreamEndCapture(stream, &graph));
    SPARSEFUSE_CHECK_CUDA(cudaGraphInstantiate(&replay, graph, 0));
    for (int i = 0; i < 3; ++i) SPARSEFUSE_CHECK_CUDA(cudaGraphLaunch(replay, stream));
    SPARSEFUSE_CHECK_CUDA(cudaStreamSynchronize(stream));
    REQUIRE((a.Read() == x));
    cudaGraphExecDestroy(replay);
    cudaGraphDestroy(graph);
    cudaStreamDestroy(stream);
  }
}

TEST_CASE("a second run on the GPU gives the same bits") {
  if (!HasDevice()) return;
  const LinearLayer layer({4000, 640, 8, Encoding::kInt4}, 31);
  for (const KernelSet kernels : {KernelSet::kBest, KernelSet::kPortable}) {
    const DeviceLayer device(layer, 0, kernels);
    for (const int64_t rows : {1, 8, 16, 100}) {
      const std::vector<float> x = RandomRows(rows, 4000, 32);
      const std::vector<float> first = device.Run(x, rows);
      for (int i = 0; i < 20; ++i) REQUIRE((device.Run(x, rows) == first));
    }
  }
}

}  // namespace
}  // namespace sparsefuse::test

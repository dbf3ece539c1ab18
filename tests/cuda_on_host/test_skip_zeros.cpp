// The kernel that reads only the weights of inputs that are not 0, its own code, on threads of the
// host: a GPU's memory and timing are not shown by this, its results are.

#include <algorithm>
#include <cstring>
#include <limits>
#include <numeric>
#include <random>
#include <vector>

#include "tests/cuda_on_host/threads_on_host.h"
//
#include "kernels/cuda/skip_zeros.cuh"
#include "kernels/linear/quantize.h"
#include "tests/kernels/linear_case.h"
#include "tests/kernels/prepared_layer.h"
#include "tests/support/catch.h"

namespace sparsefuse::test {
namespace {

using cuda::Job;
using cuda::Skip;
using cuda::SkipShape;

// Rows of which about this share of the inputs is 0 in all of them, and others in some.
std::vector<float> SparseRows(int64_t rows, int64_t inputs, double zeros, uint32_t seed) {
  std::vector<float> x = RandomRows(rows, inputs, seed);
  std::mt19937 random(seed);
  std::bernoulli_distribution everywhere(zeros), here(zeros / 2);
  for (int64_t k = 0; k < inputs; ++k) {
    const bool in_all = everywhere(random);
    for (int64_t r = 0; r < rows; ++r) {
      if (in_all || here(random)) x[static_cast<size_t>(r * inputs + k)] = 0;
    }
  }
  return x;
}

// Arrays as a GPU has them, exactly as long as they may be read.
struct Arrays {
  Arrays(const LinearLayer& layer, const std::vector<float>& x, int64_t row_count)
      : shape(cuda::SkipShapeOf(layer.shape)), rows(row_count) {
    const int64_t inputs = layer.shape.inputs;
    stride = (GroupsPerPanel(inputs) + 1) * kGroupInputs;
    codes.resize(static_cast<size_t>(rows * stride));
    for (int64_t r = 0; r < rows; ++r) {
      const auto k = static_cast<size_t>(inputs);
      row_scale.push_back(
          QuantizeRow(std::span(x).subspan(static_cast<size_t>(r) * k, k), layer.smooth,
                      std::span(codes).subspan(static_cast<size_t>(r * stride), k)));
    }
    for (const uint8_t code : layer.scale_code)
      scale.push_back(DecodeScale(layer.scale_base, code));
    words.resize(static_cast<size_t>(shape.words()));
    arrived.resize(static_cast<size_t>(shape.strips));
    sums.resize(static_cast<size_t>(shape.sums(rows)));
    y.assign(static_cast<size_t>(rows * layer.shape.outputs), -1);
  }

  SkipShape shape;
  int64_t rows, stride;
  std::vector<int8_t> codes;
  std::vector<float> row_scale, scale, y;
  std::vector<uint32_t> words;
  std::vector<int32_t> arrived, sums;
};

template <Encoding kEncoding>
void CopyWeights(const LinearLayer& layer, Arrays& arrays) {
  size_t word = 0;
  for (int64_t strip = 0; strip < arrays.shape.strips; ++strip) {
    for (int64_t k = 0; k < layer.shape.inputs; ++k) {
      for (int w = 0; w < 32; ++w) {
        arrays.words[word++] = cuda::skip::InputWord<kEncoding>(
            reinterpret_cast<const uint8_t*>(layer.packed.data()),
            static_cast<int32_t>(layer.shape.panels()),
            static_cast<int32_t>(GroupsPerPanel(layer.shape.inputs)), strip, k, w);
      }
    }
  }
}

template <Encoding kEncoding, int kRows>
std::vector<float> RunSkip(const LinearLayer& layer, const std::vector<float>& x, int64_t rows,
                           bool last_block_first, Activation activation) {
  Arrays arrays(layer, x, rows);
  CopyWeights<kEncoding>(layer, arrays);
  Job job{};
  job.scale = arrays.scale.data();
  job.bias = layer.bias.data();
  job.outputs = layer.shape.outputs;
  job.codes = arrays.codes.data();
  job.codes_stride = arrays.stride;
  job.row_scale = arrays.row_scale.data();
  job.arrived = arrays.arrived.data();
  job.rows = rows;
  job.y = arrays.y.data();
  job.activation = activation;
  const Skip skip{arrays.shape, arrays.words.data(), arrays.sums.data()};
  std::vector<int> blocks(static_cast<size_t>(arrays.shape.strips * arrays.shape.spans()));
  std::iota(blocks.begin(), blocks.end(), 0);
  if (last_block_first) std::reverse(blocks.begin(), blocks.end());
  cuda::skip::Shared<kEncoding, kRows> shared;
  RunBlocks(
      blocks, cuda::skip::kThreads,
      [&] { std::memset(&shared, 0x55, sizeof shared); },  // shared memory is not cleared
      [&] { cuda::skip::Span<kEncoding, kRows>(job, skip, shared); });
  return arrays.y;
}

std::vector<float> RunSkip(const LinearLayer& layer, const std::vector<float>& x, int64_t rows,
                           bool last_block_first = false,
                           Activation activation = Activation::kNone) {
  const auto run = [&]<Encoding kEncoding>() {
    return rows == 1   ? RunSkip<kEncoding, 1>(layer, x, rows, last_block_first, activation)
           : rows <= 4 ? RunSkip<kEncoding, 4>(layer, x, rows, last_block_first, activation)
           : rows <= 8 ? RunSkip<kEncoding, 8>(layer, x, rows, last_block_first, activation)
                       : RunSkip<kEncoding, 16>(layer, x, rows, last_block_first, activation);
  };
  return layer.shape.encoding == Encoding::kInt8 ? run.operator()<Encoding::kInt8>()
                                                 : run.operator()<Encoding::kInt4>();
}

TEST_CASE("Skipping zeros meets the definition for odd sizes, scales and numbers of rows") {
  for (const Encoding encoding : {Encoding::kInt8, Encoding::kInt4}) {
    for (const auto& [inputs, outputs, scale_groups, rows] :
         {std::tuple<int64_t, int64_t, int64_t, int64_t>{1, 1, 0, 1},
          {63, 33, 0, 3},
          {64, 128, 1, 4},
          {515, 129, 0, 5},
          {1100, 300, 8, 1},
          {1100, 257, 3, 16},
          {1290, 97, 12, 8}}) {
      for (const double zeros : {0.0, 0.6, 0.97, 1.0}) {
        INFO("encoding " << static_cast<int>(encoding) << ", K " << inputs << ", N " << outputs
                         << ", groups a scale " << scale_groups << ", rows " << rows << ", zeros "
                         << zeros);
        const LinearLayer layer({inputs, outputs, scale_groups, encoding}, 7, inputs % 2 == 1);
        const std::vector<float> x = SparseRows(rows, inputs, zeros, 11);
        CheckAgainst(ExactLinear(layer, x, rows), RunSkip(layer, x, rows, zeros > 0.9));
      }
    }
  }
}

TEST_CASE("Skipping zeros gives the integer sums of the CPU's reference kernel") {
  for (const Encoding encoding : {Encoding::kInt8, Encoding::kInt4}) {
    LinearLayer layer({1500, 140, 0, encoding}, 9);
    layer.scale_base = 1;
    std::fill(layer.scale_code.begin(), layer.scale_code.end(), uint8_t{0});
    std::fill(layer.bias.begin(), layer.bias.end(), 0.0f);
    std::vector<float> x = SparseRows(6, 1500, 0.8, 10);
    for (float& v : x) v = std::clamp(v * 50, -127.0f, 127.0f);
    for (size_t r = 0; r < 6; ++r) x[r * 1500] = 127;  // s = 1
    const auto* const reference = AllLinearKernels().back();
    REQUIRE(RunSkip(layer, x, 6) == PreparedLayer(*reference, layer).Run(x, 6));
  }
}

TEST_CASE("Skipping zeros applies activations and keeps a row with NaN to itself") {
  const LinearLayer layer({300, 100, 0}, 12);
  for (const Activation activation : kActivations) {
    std::vector<float> x = SparseRows(3, 300, 0.9, 8);
    x[300 + 17] = std::numeric_limits<float>::quiet_NaN();
    CheckAgainst(ExactLinear(layer, x, 3, {}, activation), RunSkip(layer, x, 3, false, activation));
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

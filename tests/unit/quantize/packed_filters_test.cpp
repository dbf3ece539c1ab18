// Filters in 4 bits: codes against single changes tried one by one, the file's form against ONNX
// Runtime's run of the function that unpacks it.

#include "passes/quantize/packed_filters.h"

#include <cmath>
#include <set>

#include "onnx_io/text.h"
#include "passes/engine/engine.h"
#include "passes/lower/unpack_filters.h"
#include "passes/quantize/convolution_weights.h"
#include "passes/statistics/dense.h"
#include "tests/support/catch.h"
#include "tests/support/random.h"

namespace sparsefuse {
namespace {

using Eigen::MatrixXd;
using Eigen::VectorXd;
using test::NormalValues;

// Mean of x·xᵀ of inputs that depend on their neighbours.
MatrixXd NeighbourGram(int64_t inputs, uint32_t seed) {
  const std::vector<float> values = NormalValues(4 * inputs * inputs, seed);
  MatrixXd x = Eigen::Map<const Eigen::MatrixXf>(values.data(), 4 * inputs, inputs).cast<double>();
  for (Eigen::Index k = 1; k < inputs; ++k) x.col(k) += 0.98 * x.col(k - 1);
  return x.transpose() * x / static_cast<double>(x.rows());
}

// w − ŵ of filter m if its code k were `nibble`.
VectorXd ErrorOf(const std::vector<float>& rows, const PackedFilters& packed, int64_t m,
                 int64_t changed = -1, int nibble = 0) {
  VectorXd error(packed.length);
  for (int64_t k = 0; k < packed.length; ++k) {
    const auto i = static_cast<size_t>(m * packed.length + k);
    const double step =
        static_cast<double>(packed.scales[static_cast<size_t>(m)]) *
        packed.multipliers[static_cast<size_t>(m * packed.blocks() + k / kNibbleBlock)];
    error(k) = rows[i] - step * (k == changed ? nibble : packed.nibbles[i]);
  }
  return error;
}

TEST_CASE("filters in 4 bits: no single code can move to a better place") {
  constexpr int64_t kFilters = 24, kLength = 70;
  const std::vector<float> rows = NormalValues(kFilters * kLength, 1);
  const MatrixXd gram = NeighbourGram(kLength, 2);
  const PackedFilters nearest = RoundFilters(rows, kFilters, nullptr, 1);
  const PackedFilters best = RoundFilters(rows, kFilters, &gram, 2);
  REQUIRE(best.blocks() == 3);
  MatrixXd h = gram;
  h.diagonal().array() += Decompose(gram).damping;
  const auto loss = [&](const VectorXd& error) { return error.dot(h * error); };
  double sum_nearest = 0, sum_best = 0;
  int better = 0;
  for (int64_t m = 0; m < kFilters; ++m) {
    const double found = loss(ErrorOf(rows, best, m));
    sum_best += found;
    sum_nearest += loss(ErrorOf(rows, nearest, m));
    for (int64_t k = 0; k < kLength; ++k) {
      for (int nibble = -8; nibble <= 7; ++nibble) {
        if (loss(ErrorOf(rows, best, m, k, nibble)) < found * (1 - 1e-9)) ++better;
      }
      const auto i = static_cast<size_t>(m * kLength + k);
      CHECK((best.nibbles[i] >= -8 && best.nibbles[i] <= 7));
    }
  }
  CHECK(better == 0);
  CHECK(sum_best < 0.4 * sum_nearest);
  for (const uint8_t multiplier : best.multipliers) CHECK((multiplier >= 1 && multiplier <= 8));
  CHECK(RoundFilters(rows, kFilters, &gram, 1).nibbles == best.nibbles);
}

TEST_CASE("filters in 4 bits: blocks have steps of their own, codes and errors are as defined") {
  // Filter 0: a block of large and one of small weights; filter 1: zeros.
  std::vector<float> rows(2 * 64);
  const std::vector<float> values = NormalValues(64, 3);
  for (size_t k = 0; k < 64; ++k) rows[k] = values[k] * (k < 32 ? 1.0f : 0.15f);
  const PackedFilters packed = RoundFilters(rows, 2, nullptr, 1);
  CHECK(packed.multipliers[0] >= 4 * packed.multipliers[1]);
  CHECK(packed.scales[1] == 1);
  const std::vector<int8_t> codes = packed.Codes();
  double error = 0, energy = 0;
  for (size_t i = 0; i < rows.size(); ++i) {
    CHECK(codes[i] == packed.nibbles[i] * packed.multipliers[i / 32]);
    CHECK(std::abs(codes[i]) <= 64);
    const double miss = rows[i] - packed.scales[i / 64] * static_cast<double>(codes[i]);
    error += miss * miss;
    energy += rows[i] * rows[i];
  }
  CHECK(packed.relative_error == Approx(std::sqrt(error / energy)));
  CHECK(packed.relative_error < 0.12);
}

TEST_CASE("filters in 4 bits: ONNX Runtime unpacks what was packed") {
  for (const Dims& dims : {Dims{3, 5, 3, 3}, Dims{4, 32, 1, 1}, Dims{2, 7, 5}, Dims{6, 33}}) {
    CAPTURE(dims);
    const PackedFilters packed =
        RoundFilters(NormalValues(*ElementCount(dims), 4), dims[0], nullptr, 1);
    CHECK(std::set(packed.nibbles.begin(), packed.nibbles.end()).size() > 8);
    for (const int opset : {13, 18, 21}) {
      Model model = ModelFromText("<ir_version: 7, opset_import: [\"\" : " + std::to_string(opset) +
                                  "]> g () => () {}");
      Builder builder(model.graph());
      model.graph().AddGraphOutput(
          UnpackedFilters(builder, model, packed.nibbles, packed.multipliers, dims));
      Verify(model);
      CHECK(model.ir_version >= 8);
      const Tensor found = Session(model, {}).Run({})[0];
      CHECK(found.dims() == dims);
      const std::span<const int8_t> codes = found.data<int8_t>();
      CHECK(std::vector<int8_t>(codes.begin(), codes.end()) == packed.Codes());
    }
  }
}

TEST_CASE("a bias has room as long as no scale has to grow") {
  const std::vector<float> scales = {0.5f, 0.001f};
  CHECK(HasRoomForBias({}, 0.1f, scales));
  CHECK(HasRoomForBias(std::vector<float>{1e7f, 1e4f}, 0.1f, scales));
  const std::vector<float> large = {1e7f, 2e5f};
  CHECK_FALSE(HasRoomForBias(large, 0.1f, scales));
}

}  // namespace
}  // namespace sparsefuse

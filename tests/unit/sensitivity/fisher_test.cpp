// Against the Fisher information written out: Jᵀ (diag p − p pᵀ) J for every token.

#include "passes/sensitivity/fisher.h"

#include <fmt/format.h>

#include <Eigen/Core>
#include <cmath>
#include <numeric>
#include <vector>

#include "onnx_io/text.h"
#include "passes/data/random.h"
#include "tests/support/catch.h"
#include "tests/support/dataset.h"

namespace sparsefuse {
namespace {

using Eigen::MatrixXd;
using Eigen::VectorXd;

constexpr int64_t kSamples = 40, kTokens = 3, kInputs = 4, kUnits = 6, kDraws = 200;

// Uniform in [−1, 1), rounded to what the text syntax carries.
MatrixXd Draw(int64_t rows, int64_t columns, uint64_t seed) {
  return MatrixXd::NullaryExpr(rows, columns, [&](Eigen::Index r, Eigen::Index c) {
    const uint64_t bits = RandomAt(seed, static_cast<uint64_t>(r * columns + c)) >> 44;
    return static_cast<double>(bits) * 0x1p-19 - 1;
  });
}

std::string Numbers(const MatrixXd& matrix) {
  std::string text;
  for (const auto& row : matrix.rowwise()) {
    for (const double x : row) text += fmt::format("{}{:.9f}", text.empty() ? "" : ", ", x);
  }
  return text;
}

// h = tanh(x w1), z = h w2, y = head(z), on kTokens tokens.
struct Net {
  Net(const std::string& head, int64_t classes)
      : w1(Draw(kInputs, kUnits, 1)),
        w2(Draw(kUnits, classes, 2)),
        x(Draw(kSamples * kTokens, kInputs, 3)),
        model(ModelFromText(
            fmt::format("agraph (float[n,{0},{1}] x) => (float[n,{0},{3}] y) "
                        "<float[{1},{2}] w1 = {{{4}}}, float[{2},{3}] w2 = {{{5}}}> "
                        "{{ p = MatMul(x, w1) h = Tanh(p) z = MatMul(h, w2) y = {6}(z) }}",
                        kTokens, kInputs, kUnits, classes, Numbers(w1), Numbers(w2), head))),
        calibration(model, {{"x", Samples(x)}}) {}

  static Tensor Samples(const MatrixXd& rows) {
    std::vector<float> values;
    for (const auto& row : rows.rowwise()) values.insert(values.end(), row.begin(), row.end());
    return Tensor::Of<float>({kSamples, kTokens, kInputs}, values);
  }

  Fisher Collect(int threads) const {
    Context context = calibration.context;
    context.threads = threads;
    std::vector<int64_t> samples(kSamples);
    std::iota(samples.begin(), samples.end(), 0);
    const FisherRequest request{{{"h", false, kUnits}}, {{"z", false, w2.cols()}}};
    return CollectFisher(model, request, context, samples, kDraws);
  }

  MatrixXd w1, w2, x;
  Model model;
  test::Calibration calibration;
};

struct Expected {
  VectorXd masks = VectorXd::Zero(kUnits);  // E[(∂L/∂m)²], the mean over samples
  VectorXd columns;
  MatrixXd column_gram;
};

Expected WrittenOut(const Net& net) {
  const MatrixXd h = (net.x * net.w1).array().tanh();
  const MatrixXd z = h * net.w2;
  const double variance = (z.array() - z.mean()).square().mean();
  Expected expected;
  expected.columns = VectorXd::Zero(z.cols());
  expected.column_gram = MatrixXd::Zero(z.cols(), z.cols());
  for (Eigen::Index t = 0; t < z.rows(); ++t) {
    MatrixXd information(1, 1);
    information(0, 0) = 1 / variance;
    if (z.cols() > 1) {
      VectorXd p = (z.row(t).array() - z.row(t).maxCoeff()).exp();
      p /= p.sum();
      information = MatrixXd(p.asDiagonal()) - p * p.transpose();
    }
    const MatrixXd jacobian = h.row(t).transpose().asDiagonal() * net.w2;  // ∂z/∂m [units, classes]
    expected.masks += (jacobian * information * jacobian.transpose()).diagonal() / kSamples;
    expected.columns += information.diagonal() / kSamples;
    expected.column_gram += information / kSamples;
  }
  return expected;
}

TEST_CASE("random seeds find the Fisher information of masks and of outputs") {
  const auto [head, classes] = GENERATE(
      table<std::string, int64_t>({{"Identity", 5}, {"Softmax<axis = -1>", 5}, {"Identity", 1}}));
  CAPTURE(head, classes);
  const Net net(head, classes);
  const Fisher fisher = net.Collect(1);
  const Expected expected = WrittenOut(net);
  CHECK(fisher.samples == kSamples * kDraws);
  CHECK(fisher.answers == kTokens);
  REQUIRE(fisher.masks[0].rows() == kSamples * kDraws);
  const VectorXd masks = fisher.masks[0].array().square().colwise().mean();
  // 8,000 squares of nearly normal numbers: 1.6 % of random error.
  for (Eigen::Index u = 0; u < kUnits; ++u) {
    CHECK(masks(u) == Approx(expected.masks(u)).epsilon(0.1));
  }
  for (Eigen::Index c = 0; c < classes; ++c) {
    CHECK(fisher.columns[0](c) == Approx(expected.columns(c)).epsilon(0.1));
  }
  CHECK((fisher.column_grams[0] - expected.column_gram).norm() < 0.1 * expected.column_gram.norm());
  CHECK((fisher.column_grams[0].diagonal() - fisher.columns[0]).norm() <
        1e-5 * fisher.columns[0].norm());
}

TEST_CASE("the same bytes for one thread and two") {
  const Net net("Identity", 5);
  const Fisher one = net.Collect(1), two = net.Collect(2);
  CHECK(one.masks[0] == two.masks[0]);
  CHECK(one.columns[0] == two.columns[0]);
  CHECK(one.column_grams[0] == two.column_grams[0]);
}

TEST_CASE("an output's own gradient is the seed, whatever else is asked for") {
  const Net net("Identity", 5);
  std::vector<int64_t> samples(kSamples);
  std::iota(samples.begin(), samples.end(), 0);
  for (const char* tensor : {"z", "y"}) {
    const Fisher alone = CollectFisher(net.model, {{}, {{tensor, false, 5}}},
                                       net.calibration.context, samples, kDraws);
    CHECK((alone.columns[0] - net.Collect(1).columns[0]).norm() < 1e-4);
  }
}

TEST_CASE("what gradients do not reach, and why") {
  const Model model = ModelFromText(R"(
agraph (float[n,4] x) => (float[n,4] y, int64[n] k) <float[4,4] w = {1,0,0,0, 0,1,0,0, 0,0,1,0, 0,0,0,1}> {
  a = MatMul(x, w)  b = LpNormalization<axis = 1>(a)  y = Tanh(b)
  c = Neg(a)  k = ArgMax<keepdims = 0, axis = 1>(c)
})");
  const std::vector<std::string> tensors = {"a", "b", "c"};
  const std::vector<std::string> reasons = Unreachable(model, "y", tensors);
  CHECK(reasons[0].find("(LpNormalization): no rule") != std::string::npos);
  CHECK(reasons[1].empty());
  CHECK(reasons[2] == "no differentiable path leads from it to output \"y\"");
}

}  // namespace
}  // namespace sparsefuse

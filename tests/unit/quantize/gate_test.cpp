// The gate's estimator against ‖(W₈ − W₄)·x‖ itself, its threshold against the kernels' own rule.

#include "passes/quantize/gate.h"

#include <algorithm>
#include <cmath>

#include "kernels/linear/gate.h"
#include "passes/quantize/quantize_linear.h"
#include "tests/support/catch.h"
#include "tests/support/dataset.h"
#include "tests/support/models.h"
#include "tests/support/random.h"

namespace sparsefuse {
namespace {

using test::NormalTensor;

ActivationRows NormalRows(Eigen::Index rows, Eigen::Index columns, uint32_t seed) {
  const std::vector<float> values = test::NormalValues(rows * columns, seed);
  return Eigen::Map<const ActivationRows>(values.data(), rows, columns);
}

std::span<const float> Flat(const ActivationRows& rows) {
  return {rows.data(), static_cast<size_t>(rows.size())};
}

// Rows that the kernels read in 4 bits with this threshold.
int64_t EasyRows(const FittedGate& fitted, const ActivationRows& x, double share) {
  std::vector<float> gate = fitted.gate;
  gate[2] = GateThreshold(fitted.estimates, share);
  int64_t easy = 0;
  for (Eigen::Index row = 0; row < x.rows(); ++row) {
    easy += IsEasyRow(gate.data(), x.row(row).data(), false, nullptr, x.cols());
  }
  return easy;
}

TEST_CASE("a difference that scales with the row is told from its size alone") {
  ActivationRows fit = NormalRows(100, 40, 1), select = NormalRows(60, 40, 2);
  for (ActivationRows* rows : {&fit, &select}) {
    for (Eigen::Index r = 0; r < rows->rows(); ++r) rows->row(r) *= 1 + static_cast<float>(r % 9);
  }
  const ActivationRows difference = NormalRows(300, 40, 3);
  const FittedGate fitted = FitGate(fit, select, Flat(difference), 300);
  REQUIRE(fitted.gate.size() == 4);
  CHECK(fitted.sketch_rows == 0);
  CHECK(fitted.r_squared > 0.97);
  CHECK(fitted.gate[0] == Approx(std::sqrt(300.0)).epsilon(0.05));
  CHECK(std::is_sorted(fitted.estimates.begin(), fitted.estimates.end()));
  for (const double share : {0.0, 0.1, 0.5, 0.8, 1.0}) {
    CHECK(EasyRows(fitted, select, share) == std::lround(share * 60));
  }
}

TEST_CASE("a difference along few directions takes a sketch of them") {
  // W₈ − W₄ sees 13 directions of 64: ‖x‖ says nothing about it.
  const ActivationRows fit = NormalRows(200, 64, 1), select = NormalRows(100, 64, 2);
  const ActivationRows difference = NormalRows(8000, 13, 3) * NormalRows(13, 64, 4);
  const FittedGate fitted = FitGate(fit, select, Flat(difference), 8000);
  REQUIRE((fitted.sketch_rows == 8 || fitted.sketch_rows == 13));
  REQUIRE(fitted.gate.size() == static_cast<size_t>(4 + fitted.sketch_rows * 64));
  CHECK(fitted.r_squared > 0.9);
  CHECK(fitted.gate[3] == static_cast<float>(fitted.sketch_rows));
  CHECK(EasyRows(fitted, select, 0.3) == 30);
  // The rows that it takes are those that lose least.
  std::vector<std::pair<float, bool>> rows;
  std::vector<float> gate = fitted.gate;
  gate[2] = GateThreshold(fitted.estimates, 0.3);
  for (Eigen::Index r = 0; r < select.rows(); ++r) {
    rows.emplace_back((difference * select.row(r).transpose()).norm(),
                      IsEasyRow(gate.data(), select.row(r).data(), false, nullptr, 64));
  }
  std::sort(rows.begin(), rows.end());
  CHECK(std::all_of(rows.begin(), rows.begin() + 15, [](const auto& row) { return row.second; }));
  CHECK(std::none_of(rows.begin() + 45, rows.end(), [](const auto& row) { return row.second; }));

  // 0.7 % of the bytes of 100 outputs are no sketch.
  const FittedGate small = FitGate(fit, select, Flat(difference.topRows(100).eval()), 100);
  CHECK(small.sketch_rows == 0);
  CHECK(small.r_squared < 0.5);
}

TEST_CASE("no gate without rows, or where both readings agree") {
  const ActivationRows x = NormalRows(10, 8, 1), none(0, 8);
  const ActivationRows zeros = ActivationRows::Zero(5, 8), some = NormalRows(5, 8, 2);
  CHECK(FitGate(x, x, Flat(zeros), 5).gate.empty());
  CHECK(FitGate(none, x, Flat(some), 5).gate.empty());
  CHECK(FitGate(x, none, Flat(some), 5).gate.empty());
}

TEST_CASE("gates give way until few answers change") {
  const Model original = test::ModelWith(
      18, R"(g (float[n,48] x) => (float[n,16] y) <float[1] w1 = {0}, float[1] w2 = {0}>
      { a = MatMul(x, w1) r = Relu(a) y = MatMul(r, w2) })",
      {{"w1", NormalTensor({48, 64}, 1)}, {"w2", NormalTensor({64, 16}, 2)}});
  test::Calibration calibration(original, {{"x", NormalTensor({400, 48}, 3)}});
  Context& context = calibration.context;
  context.operator_library = SPARSEFUSE_OPS_LIBRARY;
  context.measure = false;
  const auto quantize = [&](double max_flips, std::string& found) {
    Model model = original.Clone();
    LinearOptions options;
    options.widths = {.weights = WeightWidth::kNested, .ends_int8 = false};
    options.gate_share = 0.8;
    options.max_flips = max_flips;
    PassStats stats;
    QuantizeLinearLayers(model, context, options, stats);
    found = stats.findings.back().action + stats.findings.back().reason;
    int64_t easy = 0, layers = 0;
    for (const Node* node : model.graph().Nodes()) {
      if (node->domain() != "sparsefuse") continue;
      ++layers;
      easy += node->constant_input(5)->ToFloats()[2] != 0;
    }
    CHECK(layers == 2);
    return easy;
  };
  std::string found;
  CHECK(quantize(1, found) == 2);
  CHECK_THAT(found, Catch::Contains("gate: 80 % of the rows of 2 layers"));
  const double flips = std::stod(found.substr(found.find("changes ") + 8));
  CHECK(flips > 0.5);
  CHECK(quantize(flips / 100 * 0.6, found) == 2);
  CHECK_THAT(found, !Catch::Contains("gate: 80 %"));
  CHECK(quantize(0, found) == 0);
  CHECK_THAT(found, Catch::Contains("more than max_flips 0.0 %"));
}

}  // namespace
}  // namespace sparsefuse

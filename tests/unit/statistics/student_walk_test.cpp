// What the student's inputs and the residual stream are on the way, on the embedded demo model,
// against whole runs of both models added up by plain loops.

#include "passes/statistics/student_walk.h"

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "onnx_io/reader.h"
#include "passes/framework/pass.h"
#include "tests/support/catch.h"
#include "tests/support/dataset.h"
#include "tests/support/demo.h"
#include "tests/unit/analysis/graphs.h"
#include "tests/unit/statistics/naive.h"

namespace sparsefuse {
namespace {

using Eigen::MatrixXd;

constexpr double kWalkTolerance = 2e-4;

std::vector<MatrixView> Products(const Model& model) {
  std::vector<MatrixView> products;
  for (const Node* node : model.graph().TopologicalOrder()) {
    if (const std::optional<MatrixView> view = AsMatrix(*node)) products.push_back(*view);
  }
  return products;
}

TEST_CASE("what a student's product sees, and how far the stream after it has drifted") {
  test::Demo demo(6);
  const Model& model = demo.model;
  const Dataset& data = demo.data;
  const Context& context = demo.context;
  const std::vector<MatrixView> products = Products(model);
  REQUIRE(products.size() == 17);  // 4 in each of 4 layers, and the head
  StudentWalk walk(model, products, context);
  walk.Reach(*products[0].node);
  Model changed = model.Clone();
  SetWeight(changed, SameMatrix(changed, products[0]), 0.8 * Weight(products[0]),
            Bias(products[0]));
  walk.Accept(std::move(changed));
  const Batches batches = MakeBatches(data, context.splits.fit, 1);
  const auto rows = [&](const Model& of, const std::string& tensor) {
    return test::Fetch(of, batches, tensor, -1);
  };
  std::vector<size_t> added;
  for (size_t i = 0; i < 8; ++i) {
    const MatrixView& product = products[i];
    walk.Reach(*product.node);
    const PairStatistics found = walk.Inputs(product);
    const MatrixXd x = rows(model, product.input->name());
    const MatrixXd x_hat = rows(walk.student(), product.input->name());
    CAPTURE(i);
    CHECK(test::Difference(found.cross, test::CrossOf(x_hat, x)) < kWalkTolerance);
    CHECK(test::Difference(found.student_gram, test::CrossOf(x_hat, x_hat)) < kWalkTolerance);
    const std::optional<Drift> drift = walk.DriftAfter(product);
    if (!drift) continue;
    added.push_back(i);
    REQUIRE(product.output->has_single_use());
    const std::string stream = product.output->uses()[0].node->output(0)->name();
    const MatrixXd difference = rows(model, stream) - rows(walk.student(), stream);
    REQUIRE(difference.norm() > 0);
    CHECK(test::Difference(drift->cross, test::CrossOf(x_hat, difference)) < 10 * kWalkTolerance);
    CHECK(test::Difference(drift->mean, test::MomentsOf(difference).mean) < 10 * kWalkTolerance);
  }
  // Each layer's attention output and second feed-forward product.
  CHECK(added == std::vector<size_t>{1, 3, 5, 7});
}

TEST_CASE("a product solved anew is the least squares solution for its target") {
  test::Demo demo(16);
  const Model& model = demo.model;
  const std::vector<MatrixView> products = Products(model);
  StudentWalk walk(model, products, demo.context);
  walk.Reach(*products[0].node);
  Model changed = model.Clone();
  SetWeight(changed, SameMatrix(changed, products[0]), 0.8 * Weight(products[0]),
            Bias(products[0]));
  walk.Accept(std::move(changed));
  const Batches batches = MakeBatches(demo.data, demo.context.splits.fit, 1);
  const auto rows = [&](const Model& of, const Value* tensor) -> MatrixXd {
    return test::Fetch(of, batches, tensor->name(), -1);
  };
  for (const size_t i : {1, 2}) {  // into the stream; not
    const MatrixView& product = products[i];
    CAPTURE(i);
    walk.Reach(*product.node);
    const PairStatistics pair = walk.Inputs(product);
    const std::vector<OutputTarget> targets = walk.Targets(product);
    REQUIRE(targets.size() == (i == 1 ? 5 : 3));
    const MatrixXd x_hat = rows(walk.student(), product.input),
                   theirs = rows(model, product.output);
    const MatrixXd own = rows(walk.student(), product.output);
    std::vector<MatrixXd> wanted = {own, 0.5 * (own + theirs), theirs};
    if (i == 1) {
      const Value* stream = product.output->uses()[0].node->output(0);
      const MatrixXd drift = rows(model, stream) - rows(walk.student(), stream);
      wanted.insert(wanted.end(), {own + 0.5 * drift, own + drift});
    }
    const auto count = static_cast<double>(x_hat.rows());
    const MatrixXd centred = x_hat.rowwise() - x_hat.colwise().mean();
    for (size_t t = 0; t < targets.size(); ++t) {
      CAPTURE(t);
      for (const bool with_bias : {true, false}) {
        const auto [weight, bias] = SolveWhole(product, pair, targets, with_bias)[t];
        const MatrixXd miss = (x_hat * weight).rowwise() + bias.transpose() - wanted[t];
        // The gradient of ‖miss‖²/T + λ‖W' − W‖² is zero.
        const MatrixXd& x = with_bias ? centred : x_hat;
        const double damping = 0.01 * x.squaredNorm() / count / static_cast<double>(x.cols());
        const MatrixXd pull = damping * (weight - Weight(product));
        const MatrixXd push = x.transpose() * miss / count;
        CHECK((push + pull).norm() <= 1e-3 * push.norm() + 1e-5);
        if (with_bias)
          CHECK(miss.colwise().mean().norm() < 1e-4 * wanted[t].colwise().mean().norm());
        if (!with_bias) CHECK(bias == Bias(product));
      }
    }
    // The best of them is taken, and nothing that is worse than what there is.
    const double before = walk.Error(walk.student());
    std::vector<Refit> solutions = {SolveWhole(product, pair, targets, true)[2]};
    solutions.push_back({2 * solutions[0].weight, solutions[0].bias});
    CHECK_FALSE(walk.TakeBest(product, {&solutions[1], 1}, true));
    CHECK(walk.Error(walk.student()) == before);
    const std::optional<size_t> taken = walk.TakeBest(product, solutions, true);
    if (taken) CHECK(walk.Error(walk.student()) < before);
    CHECK((!taken || *taken == 0));
    CHECK(walk.TakeBest(product, {&solutions[1], 1}, false) == 0);
  }
}

TEST_CASE("there is no stream where an addition broadcasts or a model ends") {
  // One row a sample is added to three; then two products with nothing after them.
  const Model model = test::ParseGraph(R"(<ir_version: 8, opset_import: ["" : 17]>
      g (float[n,1,4] x, float[n,3,2] s) => (float[n,3,2] y, float[n,1,2] z)
      <float[4,2] w = {1, 2, 3, 4, 5, 6, 7, 8}, float[4,2] v = {1, 0, 0, 1, 1, 0, 0, 1}>
      { p = MatMul(x, w) y = Add(p, s) z = MatMul(x, v) })");
  const test::Calibration calibration(
      model, {{"x", test::RandomTensor({5, 1, 4}, 1)}, {"s", test::RandomTensor({5, 3, 2}, 2)}});
  const std::vector<MatrixView> products = Products(model);
  REQUIRE(products.size() == 2);
  StudentWalk walk(model, products, calibration.context);
  for (const MatrixView& product : products) {
    walk.Reach(*product.node);
    CHECK_FALSE(walk.DriftAfter(product));
  }
}

}  // namespace
}  // namespace sparsefuse

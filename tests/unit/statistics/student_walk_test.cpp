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
#include "tests/support/npy_files.h"
#include "tests/support/support.h"
#include "tests/unit/analysis/graphs.h"
#include "tests/unit/statistics/naive.h"

namespace sparsefuse {
namespace {

using Eigen::MatrixXd;

constexpr double kTolerance = 2e-4;

std::vector<MatrixView> Products(const Model& model) {
  std::vector<MatrixView> products;
  for (const Node* node : model.graph().TopologicalOrder()) {
    if (const std::optional<MatrixView> view = AsMatrix(*node)) products.push_back(*view);
  }
  return products;
}

TEST_CASE("what a student's product sees, and how far the stream after it has drifted") {
  Model model = ReadModel(test::SourceDir() / "configs/demo/model.onnx");
  const Dataset data = Dataset::Load(test::SourceDir() / "configs/demo/calibration.npz", model);
  Context context;
  FindPass("remove-dead")->make({})->Run(model, context);  // Dropout, which plain runs would do
  context.calibration = &data;
  context.splits = MakeSplits(data.size(), 0, 6);
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
    CHECK(test::Difference(found.cross, test::CrossOf(x_hat, x)) < kTolerance);
    CHECK(test::Difference(found.student_gram, test::CrossOf(x_hat, x_hat)) < kTolerance);
    const std::optional<Drift> drift = walk.DriftAfter(product);
    if (!drift) continue;
    added.push_back(i);
    REQUIRE(product.output->has_single_use());
    const std::string stream = product.output->uses()[0].node->output(0)->name();
    const MatrixXd difference = rows(model, stream) - rows(walk.student(), stream);
    REQUIRE(difference.norm() > 0);
    CHECK(test::Difference(drift->cross, test::CrossOf(x_hat, difference)) < 10 * kTolerance);
    CHECK(test::Difference(drift->mean, test::MomentsOf(difference).mean) < 10 * kTolerance);
  }
  // Each layer's attention output and second feed-forward product.
  CHECK(added == std::vector<size_t>{1, 3, 5, 7});
}

TEST_CASE("there is no stream where an addition broadcasts or a model ends") {
  // One row a sample is added to three; then two products with nothing after them.
  const Model model = test::ParseGraph(R"(<ir_version: 8, opset_import: ["" : 17]>
      g (float[n,1,4] x, float[n,3,2] s) => (float[n,3,2] y, float[n,1,2] z)
      <float[4,2] w = {1, 2, 3, 4, 5, 6, 7, 8}, float[4,2] v = {1, 0, 0, 1, 1, 0, 0, 1}>
      { p = MatMul(x, w) y = Add(p, s) z = MatMul(x, v) })");
  const test::TempDir folder;
  test::WriteFile(folder / "data.npz", test::NpzBytes({{"x", test::RandomTensor({5, 1, 4}, 1)},
                                                       {"s", test::RandomTensor({5, 3, 2}, 2)}}));
  const Dataset data = Dataset::Load(folder / "data.npz", model);
  Context context;
  context.calibration = &data;
  context.splits = MakeSplits(data.size(), 0);
  const std::vector<MatrixView> products = Products(model);
  REQUIRE(products.size() == 2);
  StudentWalk walk(model, products, context);
  for (const MatrixView& product : products) {
    walk.Reach(*product.node);
    CHECK_FALSE(walk.DriftAfter(product));
  }
}

}  // namespace
}  // namespace sparsefuse

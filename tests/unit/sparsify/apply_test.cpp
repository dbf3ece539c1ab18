// Zeros in one layer against plain formulas, and what later layers make up for on the embedded
// demo.

#include "passes/sparsify/apply.h"

#include "tests/support/catch.h"
#include "tests/support/demo.h"
#include "tests/support/random.h"

namespace sparsefuse {
namespace {

using Eigen::Index;
using Eigen::MatrixXd;
using Eigen::VectorXd;
using test::NormalMatrix;

struct Layer {
  Layer() {
    gram = x.rowwise() - x.colwise().mean();
    gram = gram.transpose() * gram / static_cast<double>(x.rows());
    problem = {weight,
               VectorXd::LinSpaced(64, -1, 1),
               &none,
               VectorXd::LinSpaced(64, 0.5, 1.5),
               x.colwise().mean().transpose(),
               x.cwiseAbs2().colwise().mean().transpose(),
               gram,
               FactorOf(gram)};
  }

  // Inputs that have much in common, and a mean.
  MatrixXd x = (NormalMatrix(300, 24, 1) * NormalMatrix(24, 48, 2) + 0.5 * NormalMatrix(300, 48, 3))
                   .array() +
               0.3;
  MatrixXd weight = NormalMatrix(48, 64, 4), gram;
  ZeroMask none = ZeroMask::Zero(48, 64);
  LayerProblem problem;
};

TEST_CASE("each way to choose blocks keeps to its own and solves what stays") {
  const Layer layer;
  const LayerProblem& problem = layer.problem;
  SparsifySettings settings{.pattern = {Pattern::kBlock, Scope::kLayer, 1}};
  const SweepTask task{settings.pattern, 0.5, layer.none, problem.importance};
  const Swept least = DropLeast(layer.weight, problem.squares, task);
  const Swept swept = Sweep(layer.weight, problem.factor, task);
  REQUIRE(least.zeros != swept.zeros);

  settings.choice = BlockChoice::kSize;
  const Refit by_size = problem.Solve(0.5, settings);
  CHECK(ExistingZeros(by_size.weight, Pattern::kBlock) == least.zeros);
  settings.choice = BlockChoice::kSweep;
  const Refit by_sweep = problem.Solve(0.5, settings);
  CHECK(ExistingZeros(by_sweep.weight, Pattern::kBlock) == swept.zeros);
  settings.method = Method::kWanda;
  const Refit plain = problem.Solve(0.5, settings);
  CHECK(plain.weight == least.weight);
  CHECK(plain.bias == problem.bias);

  CHECK(problem.Loss(by_size) < 0.9 * problem.Loss(plain));
  CHECK(problem.Loss(by_sweep) < problem.Loss(by_size));  // on the rows that it saw
  for (const Refit* refit : {&by_size, &by_sweep, &plain}) {
    const MatrixXd miss = (layer.x * (layer.weight - refit->weight)).rowwise() +
                          (problem.bias - refit->bias).transpose();
    CHECK(problem.Loss(*refit) ==
          Approx(miss.cwiseAbs2().colwise().mean().dot(problem.importance)));
    if (refit != &plain) CHECK(miss.colwise().mean().norm() < 1e-9);
  }
}

TEST_CASE("layers after the zeros make up for them, and zeros stay where they are") {
  test::Demo demo(40);
  const Model& model = demo.model;
  // A layer that has zeros already.
  std::vector<MatrixView> products = FindMatrices(model);
  REQUIRE(products.size() == 17);
  Eigen::MatrixXd sparse = Weight(products[9]);
  sparse.topLeftCorner(64, 64).setZero();
  SetWeight(demo.model, products[9], sparse, Bias(products[9]));
  const Context& context = demo.context;
  const SparsifySettings settings{
      .pattern = {Pattern::kBlock, Scope::kLayer, 1}, .by_loss = false, .of = {"*"}};
  const Structure structure = FindStructure(model);
  const std::vector<Prunable> modules = FindPrunable(structure);
  Evidence evidence(model, modules, context);
  const std::vector<SparseLayer> layers = FindSparseLayers(model, settings, context);
  std::vector<double> shares(layers.size());
  shares[2] = shares[5] = 0.5;
  const Model zeroed = ApplyZeros(evidence, layers, shares, settings);
  const Model solved = ResolveInSequence(model, zeroed, layers, shares, Pattern::kBlock, context);
  int behind = 0;
  for (size_t i = 0; i < layers.size(); ++i) {
    CAPTURE(i);
    const MatrixXd before = Weight(SameMatrix(zeroed, layers[i].matrix));
    const MatrixXd after = Weight(SameMatrix(solved, layers[i].matrix));
    CHECK((before != Weight(layers[i].matrix)) == (shares[i] > 0));
    CHECK(ExistingZeros(after, Pattern::kBlock) == ExistingZeros(before, Pattern::kBlock));
    if (i < 2) CHECK(after == before);
    if (i > 2 && shares[i] == 0) behind += after != before;
  }
  CHECK(behind >= 5);
  CHECK(evidence.kl().Of(solved) < 0.9 * evidence.kl().Of(zeroed));
}

}  // namespace
}  // namespace sparsefuse

// Counting the codes of a layer's inputs that are 0, and telling its operator.

#include <cmath>
#include <vector>

#include "passes/engine/engine.h"
#include "passes/quantize/quantize_linear.h"
#include "passes/quantize/smoothing.h"
#include "tests/support/catch.h"
#include "tests/support/dataset.h"
#include "tests/support/models.h"
#include "tests/support/random.h"

namespace sparsefuse {
namespace {

using test::NormalTensor;

TEST_CASE("codes are 0 where inputs are, and beside large ones where they are small") {
  ActivationRows x(2, 4);
  x << 100, 0.3f, -0.3f, 0,  // 0.3 is 0.38 of a step of 100/127
      1, 0.3f, -0.3f, 0;
  CHECK(ZeroCodeShare(x) == 4.0 / 8);
  CHECK(ZeroCodeShare(ActivationRows::Zero(3, 5)) == 1);
  CHECK(ZeroCodeShare(ActivationRows(0, 5)) == 0);
}

// Nodes of the domain sparsefuse, and what they are told; −1: nothing.
std::vector<float> Told(const Model& original, const LinearOptions& options, PassStats& stats) {
  test::Calibration calibration(original, {{"x", NormalTensor({400, 48}, 3)}});
  Context& context = calibration.context;
  context.operator_library = SPARSEFUSE_OPS_LIBRARY;
  context.measure = false;
  Model model = original.Clone();
  QuantizeLinearLayers(model, context, options, stats);
  std::vector<float> told;
  for (const Node* node : model.graph().TopologicalOrder()) {
    if (node->domain() == "sparsefuse") told.push_back(node->GetFloat("zero_inputs", -1));
  }
  // A hint that the operator takes and no result depends on.
  const Tensor x = NormalTensor({7, 48}, 9);
  const auto run = [&] {
    return Session(model, {.threads = 1, .operator_library = SPARSEFUSE_OPS_LIBRARY})
        .Run({{"x", x}})
        .front()
        .ToFloats();
  };
  const std::vector<float> with = run();
  for (Node* node : model.graph().Nodes()) node->RemoveAttribute("zero_inputs");
  CHECK(run() == with);
  return told;
}

TEST_CASE("an operator is told when at least half of its inputs' codes are 0") {
  const Model original = test::ModelWith(18, R"(g (float[n,48] x) => (float[n,16] y)
      <float[1] w1 = {0}, float[1] b = {-5.0}, float[1] w2 = {0}, float[1] w3 = {0}>
      { a = MatMul(x, w1) c = Add(a, b) r = Relu(c) h = MatMul(r, w2) y = MatMul(h, w3) })",
                                         {{"w1", NormalTensor({48, 64}, 1)},
                                          {"w2", NormalTensor({64, 32}, 1)},
                                          {"w3", NormalTensor({32, 16}, 1)}});
  LinearOptions options;
  options.smooth = false;  // zeros are counted all the same
  PassStats stats;
  const std::vector<float> told = Told(original, options, stats);
  REQUIRE(told.size() == 3);
  CHECK(told[0] == -1);
  CHECK(told[1] >= 0.625f);
  CHECK(told[1] < 1);
  CHECK(told[1] * 16 == std::floor(told[1] * 16));
  CHECK(told[2] == -1);
  bool reported = false;
  for (const Finding& finding : stats.findings) {
    reported = reported || finding.action.find("of its inputs' codes are 0") != std::string::npos;
  }
  CHECK(reported);
  options.widths = {.weights = WeightWidth::kNested, .ends_int8 = false};
  CHECK(Told(original, options, stats) == std::vector<float>{-1, -1, -1});
}

}  // namespace
}  // namespace sparsefuse

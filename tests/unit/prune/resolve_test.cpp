// What stands in a dropped block's place, on the embedded demo model.

#include "passes/prune/resolve.h"

#include <algorithm>
#include <iterator>
#include <numeric>
#include <optional>

#include "onnx_io/reader.h"
#include "passes/framework/pass.h"
#include "passes/sensitivity/consumer_refit.h"
#include "tests/support/catch.h"
#include "tests/support/demo.h"

namespace sparsefuse {
namespace {

TEST_CASE("a constant worse than the last bias gives way to it, a better one stays") {
  test::Demo demo(10);
  const Model& model = demo.model;
  const Context& context = demo.context;
  const Structure structure = FindStructure(model);
  const std::vector<Prunable> modules = FindPrunable(structure);
  const auto prunable = std::find_if(modules.begin(), modules.end(), [](const Prunable& p) {
    return p.module->kind == ModuleKind::kNeurons && p.consumers.size() == 1;
  });
  REQUIRE(prunable != modules.end());
  Evidence evidence(model, modules, context);
  const std::vector<Choice> gone = {{&*prunable, {}}};
  const auto student_with = [&](double shift) {
    Refit refit = ZeroConsumer(*prunable, 0, {});
    refit.bias.array() += shift * Eigen::ArrayXd::LinSpaced(refit.bias.size(), -1, 1);
    Model student = model.Clone();
    SetRefit(student, *prunable, 0, refit);
    return student;
  };
  const double bare = evidence.kl().Of(student_with(0));

  Model far = student_with(10);
  REQUIRE(evidence.kl().Of(far) > bare);
  CHECK(PreferLastBiases(evidence, gone, far) == std::vector<const Prunable*>{&*prunable});
  CHECK(evidence.kl().Of(far) == bare);

  Model whole = model.Clone();
  CHECK(PreferLastBiases(evidence, gone, whole).empty());
  CHECK(evidence.kl().Of(whole) == 0);

  const std::vector<Choice> stays = {{&*prunable, {0}}};  // units are left: no constant
  Model other = student_with(10);
  CHECK(PreferLastBiases(evidence, stays, other).empty());
}

TEST_CASE("in sequence, later products make up for what the consumer cannot") {
  test::Demo demo(60);
  Model& model = demo.model;
  Context& context = demo.context;
  demo.Apply("fold-constants", nlohmann::json::object(), model);
  const Structure structure = FindStructure(model);
  const std::vector<Prunable> modules = FindPrunable(structure);
  std::vector<const Prunable*> neurons;
  for (const Prunable& module : modules) {
    if (module.module->kind == ModuleKind::kNeurons) neurons.push_back(&module);
  }
  REQUIRE(neurons.size() == 4);
  std::vector<MatrixView> products;
  for (const Node* node : model.graph().TopologicalOrder()) {
    if (const std::optional<MatrixView> view = AsMatrix(*node)) products.push_back(*view);
  }
  const auto last = std::prev(products.end(), 2);  // before the head
  const auto sparse = std::prev(products.end(), 3);
  Eigen::MatrixXd weight = Weight(*sparse);
  weight.topLeftCorner(64, 64).setZero();
  SetWeight(model, *sparse, weight, Bias(*sparse));
  context.exclude_nodes = NodePatterns({last->node->name()});
  std::vector<int64_t> kept(128);
  std::iota(kept.begin(), kept.end(), 0);
  const std::vector<Choice> choices = {{neurons[1], kept}};
  const Node* consumer = neurons[1]->consumers[0].matrix.node;
  Evidence evidence(model, modules, context);
  const Model refitted = RepairSurvivors(evidence, choices, Repair::kRefit);
  const Model solved = RepairSurvivors(evidence, choices, Repair::kSequence);
  bool behind = false;
  int changed = 0;
  for (const MatrixView& product : products) {
    const bool same = Weight(SameMatrix(solved, product)) == Weight(product);
    CAPTURE(product.node->name());
    const bool kept_by_refit = Weight(SameMatrix(refitted, product)) == Weight(product);
    CHECK(kept_by_refit == (product.node != consumer));
    behind = behind || product.node == consumer;
    if (!behind || product.node == last->node || product.node == sparse->node) CHECK(same);
    changed += !same;
    // No node more where there was no bias.
    if (!product.bias) CHECK(Bias(SameMatrix(solved, product)).isZero(0));
  }
  CHECK(changed > 4);
  CHECK(evidence.kl().Of(solved) < 0.95 * evidence.kl().Of(refitted));
}

}  // namespace
}  // namespace sparsefuse

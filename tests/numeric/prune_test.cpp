// Pruning of the embedded demo: what the design says about it, measured.

#include <algorithm>

#include "onnx_io/reader.h"
#include "passes/analysis/structure.h"
#include "passes/engine/evaluate.h"
#include "passes/framework/pass.h"
#include "passes/framework/runner.h"
#include "passes/statistics/gram.h"
#include "tests/support/catch.h"
#include "tests/support/demo.h"

namespace sparsefuse {
namespace {

std::string LastProduct(const Block& block) {
  std::string name;
  for (const Node* node : block.removed) {
    if (node->Is("MatMul") || node->Is("Gemm")) name = node->name();
  }
  return name;
}

TEST_CASE("survivors that are chosen and repaired together beat simpler rules", "[large]") {
  test::Demo demo(120);  // enough for rules to differ
  const auto kl = [&](const char* criterion, const char* repair) {
    const Model model =
        demo.After("prune", {{"ratio", 0.3}, {"criterion", criterion}, {"repair", repair}});
    CHECK(model.WeightBytes() < demo.model.WeightBytes() * 9 / 10);
    return demo.Kl(model);
  };
  const double sequence = kl("obs", "sequence");
  CHECK(sequence < 0.8 * kl("fisher", "none"));
  CHECK(sequence < 0.8 * kl("magnitude", "none"));
}

TEST_CASE("pruning gives the same bytes with one thread and two", "[large]") {
  test::Demo demo(120);  // enough for rules to differ
  CHECK(ModelSnapshot(demo.After("prune", {{"ratio", 0.2}}, 1)) ==
        ModelSnapshot(demo.After("prune", {{"ratio", 0.2}}, 2)));
}

TEST_CASE("a block that goes leaves the mean of what it added") {
  test::Demo demo(120);  // enough for rules to differ
  Context& context = demo.context;
  context.splits.fit.resize(24);
  context.splits.select.resize(4);
  const Structure structure = FindStructure(demo.model);
  const Block& block = structure.blocks[1];  // for the last feed-forward its bias is better
  const Model model =
      demo.After("prune", {{"keep", {LastProduct(block) + "=0"}}, {"repair", "refit"}});
  CHECK(FindStructure(model).blocks.size() + 1 == structure.blocks.size());
  CHECK(model.WeightBytes() < demo.model.WeightBytes() - 2 * 128 * 512 * 4);

  const std::string branch = block.add->input(1 - block.kept_input)->name();
  const RowRequest request{{.tensor = branch}, false};
  const Batches fit = MakeBatches(*context.calibration, context.splits.fit, 8);
  const Eigen::VectorXd mean = CollectRows(demo.model, {&request, 1}, fit, {}, context)[0].mean;
  const Tensor* stays = model.graph().FindValue(branch + "_mean")->constant();
  REQUIRE(stays);
  const std::vector<float> found = stays->ToFloats();
  REQUIRE(found.size() == 128);
  const Eigen::VectorXf error =
      Eigen::Map<const Eigen::VectorXf>(found.data(), 128) - mean.cast<float>();
  CHECK(error.norm() < 1e-4F * static_cast<float>(mean.norm()));
}

TEST_CASE("blocks go where units alone are not enough") {
  test::Demo demo(120);  // enough for rules to differ
  demo.context.splits.fit.resize(4);
  const nlohmann::json units = {
      {"ratio", 0.85}, {"units", {"heads"}}, {"criterion", "magnitude"}, {"repair", "none"}};
  Model model = demo.model.Clone();
  CHECK_THROWS_AS(demo.Apply("prune", units, model), UserError);  // one head of four stays
  nlohmann::json blocks = units;
  blocks["block_drop"] = true;
  const PassStats stats = demo.Apply("prune", blocks, model);
  const auto gone =
      std::count_if(stats.findings.begin(), stats.findings.end(), [](const Finding& finding) {
        return finding.action.find("attention block removed") != std::string::npos;
      });
  CHECK(gone > 0);
  CHECK(FindStructure(model).blocks.size() + static_cast<size_t>(gone) ==
        FindStructure(demo.model).blocks.size());
}

TEST_CASE("a share of the time is measured once, and then repeated to the byte") {
  test::Demo demo(120);  // enough for rules to differ
  demo.context.splits.fit.resize(4);
  const nlohmann::json settings = {
      {"ratio", 0.2}, {"of", "latency"}, {"criterion", "magnitude"}, {"repair", "none"}};
  const Model measured = demo.After("prune", settings);
  const nlohmann::json decisions = demo.context.decisions;
  CHECK(decisions["prune"]["latency"][0]["saved"].get<double>() >= 0.2);

  demo.context.measure = false;
  CHECK(ModelSnapshot(demo.After("prune", settings)) == ModelSnapshot(measured));
  CHECK(demo.context.decisions == decisions);
  nlohmann::json other = settings;  // nothing was decided about it
  other["ratio"] = 0.3;
  Model model = demo.model.Clone();
  CHECK_THROWS_AS(demo.Apply("prune", other, model), UserError);
}

}  // namespace
}  // namespace sparsefuse

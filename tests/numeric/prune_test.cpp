// Pruning of the embedded demo: what the design says about it, measured.

#include <algorithm>

#include "onnx_io/reader.h"
#include "passes/analysis/structure.h"
#include "passes/engine/evaluate.h"
#include "passes/framework/pass.h"
#include "passes/framework/runner.h"
#include "tests/support/catch.h"
#include "tests/support/support.h"

namespace sparsefuse {
namespace {

class Demo {
 public:
  Demo()
      : folder_(test::SourceDir() / "configs/demo"),
        model_(ReadModel(folder_ / "model.onnx")),
        data_(Dataset::Load(folder_ / "calibration.npz", model_)) {
    context_.teacher = &model_;
    context_.calibration = &data_;
    context_.splits = MakeSplits(data_.size(), 0, 120);  // enough for rules to differ
    Apply("raise-opset", nlohmann::json::object(), model_);
    Apply("remove-dead", nlohmann::json::object(), model_);
  }

  PassStats Apply(std::string_view pass, const nlohmann::json& settings, Model& model,
                  int threads = 1) {
    const PassInfo* info = FindPass(pass);
    REQUIRE(info);
    context_.threads = threads;
    const auto instance = info->make(Params::Parse(info->params, settings, "$"));
    instance->Check(model, context_);
    return instance->Run(model, context_);
  }

  Model Pruned(const nlohmann::json& settings, int threads = 1) {
    Model model = model_.Clone();
    CHECK(Apply("prune", settings, model, threads).changed);
    REQUIRE_NOTHROW(Verify(model));
    return model;
  }

  // KL per token on samples that pruning never saw.
  double Kl(const Model& model) const {
    const Comparison comparison =
        CompareModels(Session(model_, {}), Session(model, {}), data_, context_.splits.audit);
    return comparison.main().Kl();
  }

  const Model& model() const { return model_; }
  Context& context() { return context_; }

 private:
  std::filesystem::path folder_;
  Model model_;
  Dataset data_;
  Context context_;
};

// The last product of the model's last block of this kind.
std::string LastProduct(const Model& model, BlockKind kind) {
  std::string name;
  for (const Block& block : FindStructure(model).blocks) {
    if (block.kind != kind) continue;
    for (const Node* node : block.removed) {
      if (node->Is("MatMul") || node->Is("Gemm")) name = node->name();
    }
  }
  return name;
}

TEST_CASE("survivors that are chosen and repaired together beat simpler rules") {
  Demo demo;
  const auto kl = [&](const char* criterion, const char* repair) {
    const Model model = demo.Pruned({{"ratio", 0.3}, {"criterion", criterion}, {"repair", repair}});
    CHECK(model.WeightBytes() < demo.model().WeightBytes() * 9 / 10);
    return demo.Kl(model);
  };
  const double sequence = kl("obs", "sequence");
  CHECK(sequence < 0.8 * kl("fisher", "none"));
  CHECK(sequence < 0.8 * kl("magnitude", "none"));
}

TEST_CASE("pruning gives the same bytes with one thread and two") {
  Demo demo;
  CHECK(ModelSnapshot(demo.Pruned({{"ratio", 0.2}}, 1)) ==
        ModelSnapshot(demo.Pruned({{"ratio", 0.2}}, 2)));
}

TEST_CASE("a block that goes leaves its mean, which is better than its last bias") {
  Demo demo;
  demo.context().splits.fit.resize(24);
  demo.context().splits.select.resize(8);
  const std::string keep = LastProduct(demo.model(), BlockKind::kAttention) + "=0";
  const auto kl = [&](const char* repair) {
    const Model model = demo.Pruned({{"keep", {keep}}, {"repair", repair}});
    CHECK(FindStructure(model).blocks.size() + 1 == FindStructure(demo.model()).blocks.size());
    CHECK(model.WeightBytes() < demo.model().WeightBytes() - 4 * 128 * 128 * 4);
    return demo.Kl(model);
  };
  CHECK(kl("sequence") < 0.9 * kl("none"));
}

TEST_CASE("blocks that are missed less than units go instead of them") {
  Demo demo;
  demo.context().splits.fit.resize(24);
  demo.context().splits.select.resize(8);
  Model model = demo.model().Clone();
  const PassStats stats =
      demo.Apply("prune", {{"ratio", 0.3}, {"units", {"heads"}}, {"block_drop", true}}, model);
  CHECK(std::any_of(stats.findings.begin(), stats.findings.end(), [](const Finding& finding) {
    return finding.action.find("attention block removed") != std::string::npos;
  }));
  CHECK(FindStructure(model).blocks.size() < FindStructure(demo.model()).blocks.size());
}

TEST_CASE("a share of the time is measured once, and then repeated to the byte") {
  Demo demo;
  demo.context().splits.fit.resize(24);
  demo.context().splits.select.resize(8);
  const nlohmann::json settings = {{"ratio", 0.3}, {"of", "latency"}, {"units", {"heads"}}};
  const Model measured = demo.Pruned(settings);
  const nlohmann::json decisions = demo.context().decisions;
  CHECK(decisions["prune"]["latency"][0]["saved"].get<double>() >= 0.3);

  demo.context().measure = false;
  CHECK(ModelSnapshot(demo.Pruned(settings)) == ModelSnapshot(measured));
  CHECK(demo.context().decisions == decisions);
  // Nothing was decided about this.
  Model model = demo.model().Clone();
  CHECK_THROWS_AS(
      demo.Apply("prune", {{"ratio", 0.4}, {"of", "latency"}, {"units", {"heads"}}}, model),
      UserError);
}

}  // namespace
}  // namespace sparsefuse

// Pruning of the embedded demo: what the design says about it, measured.

#include "onnx_io/reader.h"
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

 private:
  std::filesystem::path folder_;
  Model model_;
  Dataset data_;
  Context context_;
};

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

}  // namespace
}  // namespace sparsefuse

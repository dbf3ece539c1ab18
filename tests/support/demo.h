// The embedded demo model with its data, for tests that need something trained.

#ifndef SPARSEFUSE_TESTS_SUPPORT_DEMO_H_
#define SPARSEFUSE_TESTS_SUPPORT_DEMO_H_

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string_view>

#include "onnx_io/reader.h"
#include "passes/engine/evaluate.h"
#include "passes/framework/pass.h"
#include "passes/framework/runner.h"
#include "tests/support/catch.h"
#include "tests/support/support.h"

namespace sparsefuse::test {

// Without its Dropouts, which plain runs would do.
struct Demo {
  // On the first so many samples of the calibration data.
  explicit Demo(int64_t samples)
      : model(ReadModel(SourceDir() / "configs/demo/model.onnx")),
        data(Dataset::Load(SourceDir() / "configs/demo/calibration.npz", model)) {
    context.teacher = &model;
    context.calibration = &data;
    context.splits = MakeSplits(data.size(), 0, samples);
    Apply("raise-opset", nlohmann::json::object(), model);
    Apply("remove-dead", nlohmann::json::object(), model);
  }
  Demo(const Demo&) = delete;

  PassStats Apply(std::string_view pass, const nlohmann::json& settings, Model& changed,
                  int threads = 1) {
    const PassInfo* info = FindPass(pass);
    REQUIRE(info);
    context.threads = threads;
    const auto instance = info->make(Params::Parse(info->params, settings, "$"));
    instance->Check(changed, context);
    return instance->Run(changed, context);
  }

  // The model after a pass that changes it.
  Model After(std::string_view pass, const nlohmann::json& settings, int threads = 1) {
    Model changed = model.Clone();
    CHECK(Apply(pass, settings, changed, threads).changed);
    REQUIRE_NOTHROW(Verify(changed));
    return changed;
  }

  // KL per token on samples that no pass has seen.
  double Kl(const Model& changed) const {
    const Comparison comparison =
        CompareModels(Session(model, {}), Session(changed, {}), data, context.splits.audit);
    return comparison.main().Kl();
  }

  Model model;
  Dataset data;
  Context context;
};

}  // namespace sparsefuse::test

#endif  // SPARSEFUSE_TESTS_SUPPORT_DEMO_H_

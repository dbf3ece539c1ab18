// Zeros in the embedded demo: what the design says about them, measured.

#include <algorithm>

#include "onnx_io/reader.h"
#include "passes/engine/evaluate.h"
#include "passes/framework/pass.h"
#include "passes/framework/runner.h"
#include "passes/sparsify/pattern.h"
#include "passes/statistics/matrix.h"
#include "tests/support/catch.h"
#include "tests/support/support.h"

namespace sparsefuse {
namespace {

class Demo {
 public:
  explicit Demo(int64_t samples)
      : folder_(test::SourceDir() / "configs/demo"),
        model_(ReadModel(folder_ / "model.onnx")),
        data_(Dataset::Load(folder_ / "calibration.npz", model_)) {
    context_.teacher = &model_;
    context_.calibration = &data_;
    context_.splits = MakeSplits(data_.size(), 0, samples);
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

  Model Sparse(const nlohmann::json& settings, int threads = 1) {
    Model model = model_.Clone();
    CHECK(Apply("sparsify", settings, model, threads).changed);
    REQUIRE_NOTHROW(Verify(model));
    return model;
  }

  // KL per token on samples that the pass never saw.
  double Kl(const Model& model) const {
    const Comparison comparison =
        CompareModels(Session(model_, {}), Session(model, {}), data_, context_.splits.audit);
    return comparison.main().Kl();
  }

 private:
  std::filesystem::path folder_;
  Model model_;
  Dataset data_;
  Context context_;
};

// Of all matrices that have any.
double ZeroBlocks(const Model& model) {
  double zeros = 0, all = 0;
  for (const Node* node : model.graph().TopologicalOrder()) {
    const std::optional<MatrixView> matrix = AsMatrix(*node);
    if (!matrix) continue;
    const ZeroMask mask = ExistingZeros(Weight(*matrix), Pattern::kBlock);
    if (ZeroShare(mask) == 0) continue;
    zeros += ZeroShare(mask) * static_cast<double>(mask.size());
    all += static_cast<double>(mask.size());
  }
  return zeros / std::max(all, 1.0);
}

// Both feed-forward and attention layers, few enough for a quick test.
const nlohmann::json kSome = {"node_MatMul_47", "node_MatMul_5*", "node_MatMul_67",
                              "node_MatMul_101", "node_MatMul_103"};

TEST_CASE("blocks with feedback cost less than half of blocks by magnitude") {
  Demo demo(40);
  const auto sparse = [&](const char* method) {
    return demo.Sparse({{"sparsity", 0.5},
                        {"of", kSome},
                        {"quad_multiple", 1},
                        {"method", method},
                        {"distribute", "uniform"}});
  };
  const Model plain = sparse("magnitude"), repaired = sparse("sparsegpt");
  CHECK(ZeroBlocks(plain) == Approx(0.5));
  CHECK(ZeroBlocks(repaired) == Approx(0.5));
  CHECK(demo.Kl(repaired) < 0.5 * demo.Kl(plain));
}

TEST_CASE("zeros are the same bytes with one thread and two, in any order of units") {
  Demo demo(12);
  const nlohmann::json settings = {
      {"sparsity", 0.3}, {"of", {"node_MatMul_5*"}}, {"permute", true}};
  CHECK(ModelSnapshot(demo.Sparse(settings, 1)) == ModelSnapshot(demo.Sparse(settings, 2)));
}

}  // namespace
}  // namespace sparsefuse

// What stands in a dropped block's place, on the embedded demo model.

#include "passes/prune/resolve.h"

#include <algorithm>

#include "onnx_io/reader.h"
#include "passes/framework/pass.h"
#include "passes/sensitivity/consumer_refit.h"
#include "tests/support/catch.h"
#include "tests/support/support.h"

namespace sparsefuse {
namespace {

TEST_CASE("a constant worse than the last bias gives way to it, a better one stays") {
  Model model = ReadModel(test::SourceDir() / "configs/demo/model.onnx");
  const Dataset data = Dataset::Load(test::SourceDir() / "configs/demo/calibration.npz", model);
  Context context;
  context.teacher = &model;
  context.calibration = &data;
  context.splits = MakeSplits(data.size(), 0, 10);
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

}  // namespace
}  // namespace sparsefuse

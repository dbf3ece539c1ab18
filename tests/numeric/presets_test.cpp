// Every preset on the embedded demo: verified on data, smaller, the same bytes for any number of
// threads.

#include "onnx_io/reader.h"
#include "passes/framework/runner.h"
#include "tests/support/catch.h"
#include "tests/support/support.h"

namespace sparsefuse {
namespace {

Model RunPreset(const Config& config, const Model& teacher, const Dataset& data, int threads) {
  Context context;
  context.teacher = &teacher;
  context.calibration = &data;
  context.splits = MakeSplits(data.size(), config.calibration_data.seed);
  context.threads = threads;
  context.emit = config.output.emit;
  context.measure = false;  // no choice by timing, which may differ from run to run
  context.operator_library = SPARSEFUSE_OPS_LIBRARY;
  Model student = teacher.Clone();
  const std::vector<PassReport> reports = RunPasses(student, config.passes, context);
  CHECK(reports.size() == config.passes.size());
  for (const PassReport& report : reports) {
    INFO(report.name);
    CHECK(std::string(report.verification.Level()) == "full");
    CHECK(report.verification.cosine > 0.99);
  }
  return student;
}

TEST_CASE("presets make the demo smaller, verified, the same with 1 and 2 threads", "[large]") {
  const auto demo = test::SourceDir() / "configs/demo";
  const Model teacher = ReadModel(demo / "model.onnx");
  const Dataset data = Dataset::Load(demo / "calibration.npz", teacher);
  for (const Preset& preset : Presets()) {
    DYNAMIC_SECTION(preset.name) {
      const Config config = LoadPreset(preset.name);
      const Model student = RunPreset(config, teacher, data, 1);
      CHECK(static_cast<double>(student.WeightBytes()) <
            0.30 * static_cast<double>(teacher.WeightBytes()));
      size_t custom = 0;
      for (const Node* node : student.graph().Nodes()) custom += node->domain() == "sparsefuse";
      CHECK((custom > 0) == (config.output.emit == Emit::kCustom));
      CHECK(ModelSnapshot(RunPreset(config, teacher, data, 2)) == ModelSnapshot(student));
    }
  }
}

}  // namespace
}  // namespace sparsefuse

// Options of the embedded demo model: what they say beside what changing the model does, and the
// same with statistics on disk, without, and for any number of threads.

#include <nlohmann/json.hpp>

#include "onnx_io/reader.h"
#include "passes/engine/evaluate.h"
#include "passes/framework/pass.h"
#include "passes/sensitivity/consumer_refit.h"
#include "passes/sensitivity/matrix_options.h"
#include "passes/sensitivity/unit_options.h"
#include "tests/support/catch.h"
#include "tests/support/demo.h"

namespace sparsefuse {
namespace {

struct Demo : test::Demo {
  Demo() : test::Demo(30), structure(FindStructure(model)), modules(FindPrunable(structure)) {
    for (Prunable& module : modules) {
      module.counts = KeepCounts(*module.module, 64, 16);
      // One module of heads and one of neurons are enough.
      if (&module - modules.data() > 3 && module.reason.empty()) module.reason = "not asked for";
    }
  }

  Structure structure;
  std::vector<Prunable> modules;
};

std::vector<double> Flat(const std::vector<ModuleOptions>& modules) {
  std::vector<double> all;
  for (const ModuleOptions& module : modules) {
    all.push_back(module.correction);
    for (const PruneOption& option : module.options) {
      all.insert(all.end(), {option.predicted, option.measured});
      all.insert(all.end(), option.kept.begin(), option.kept.end());
    }
  }
  return all;
}

TEST_CASE("KL on the select split is that of the models' comparison") {
  Demo demo;
  const SelectKl kl(demo.model, demo.context);
  CHECK(kl.Of(demo.model) == 0);
  Model changed = demo.model.Clone();
  const std::vector<MatrixView> matrices = FindMatrices(demo.model);
  const MatrixView view =
      *AsMatrix(*changed.graph().FindValue(matrices[0].node->output(0)->name())->producer());
  SetWeight(changed, view, 0.9 * Weight(matrices[0]), Bias(matrices[0]));
  const Comparison comparison =
      CompareModels(Session(demo.model, {}), Session(changed, {}), *demo.context.calibration,
                    demo.context.splits.select);
  CHECK(comparison.main().Kl() > 1e-5);
  CHECK(kl.Of(changed) == Approx(comparison.main().Kl()).epsilon(1e-3));
}

TEST_CASE("options are the same with and without statistics on disk, and for two threads") {
  Demo demo;
  std::vector<std::vector<double>> found;
  const test::TempDir folder;
  for (const int run : {0, 1, 2, 3}) {
    demo.context.cache_folder = run < 2 ? std::filesystem::path() : folder.path();
    demo.context.threads = run == 1 ? 2 : 1;
    Evidence evidence(demo.model, demo.modules, demo.context);
    found.push_back(Flat(FindOptions(evidence, demo.modules, Criterion::kObs)));
  }
  CHECK(found[0].size() > 20);
  CHECK(found[1] == found[0]);
  CHECK(found[2] == found[0]);  // writes
  CHECK(found[3] == found[0]);  // reads
}

TEST_CASE("curvature is whole and the same, just found and read back from disk") {
  Demo demo;
  const test::TempDir folder;
  demo.context.cache_folder = folder.path();
  Evidence first(demo.model, demo.modules, demo.context);
  Evidence second(demo.model, demo.modules, demo.context);
  const Curvature &found = first.curvature(), &read = second.curvature();
  REQUIRE(found.outputs.size() > 4);
  REQUIRE(read.outputs.size() == found.outputs.size());
  for (const auto& [name, output] : found.outputs) {
    CAPTURE(name);
    REQUIRE(output.gram.rows() == output.columns.size());
    CHECK(output.gram == read.outputs.at(name).gram);
    CHECK(output.columns == read.outputs.at(name).columns);
  }
}

TEST_CASE("predictions are near what is measured, for units, bits and ranks") {
  Demo demo;
  Evidence evidence(demo.model, demo.modules, demo.context);
  int64_t measured = 0;
  const auto check = [&](double predicted, double actual) {
    if (actual < 1e-7) return;  // rounding
    ++measured;
    CHECK(predicted < 20 * actual);
    CHECK(predicted > actual / 20);
  };
  for (const ModuleOptions& module : FindOptions(evidence, demo.modules, Criterion::kObs)) {
    for (const PruneOption& option : module.options) check(option.predicted, option.measured);
  }
  CHECK(measured >= 4);
  demo.context.exclude_nodes = NodePatterns({"node_linear_([4-9]|1[0-5])"});  // for time
  const std::vector<MatrixOptions> matrices = FindMatrixOptions(evidence);
  REQUIRE(matrices.size() == evidence.matrices().size());
  for (const MatrixOptions& matrix : matrices) {
    CAPTURE(matrix.matrix->output->name(), matrix.reason);
    for (const MatrixOption& option : matrix.options) {
      CAPTURE(option.value);
      check(option.predicted, option.measured);
    }
    for (size_t i = 1; i < matrix.options.size(); ++i) {
      if (matrix.options[i].kind != matrix.options[i - 1].kind) continue;
      CHECK(matrix.options[i].predicted >= matrix.options[i - 1].predicted);  // milder ones first
    }
  }
}

TEST_CASE("the pass sensitivity changes nothing and says what it found") {
  Demo demo;
  demo.context.exclude_nodes = NodePatterns({"node_linear_([5-9]|1[0-5])"});  // for time
  const PassInfo* info = FindPass("sensitivity");
  REQUIRE(info);
  const auto pass = info->make(Params::Parse(info->params, {{"matrices", false}}, "$"));
  pass->Check(demo.model, demo.context);
  CHECK_FALSE(pass->Run(demo.model, demo.context).changed);
  const nlohmann::json& found = demo.context.sensitivity;
  const nlohmann::json& heads = found["modules"][0];
  CHECK(heads["kind"] == "attention heads");
  CHECK(heads["fisher"].size() == heads["units"]);
  double before = 0;
  for (const nlohmann::json& option : heads["options"]) {
    CHECK(option["kept"].size() == option["keep"]);
    CHECK(option["saved"] > before);
    before = option["saved"];
  }
  CHECK(found["agreement"]["units"]["options"] >= 8);
  CHECK(found["matrices"].empty());
}

}  // namespace
}  // namespace sparsefuse

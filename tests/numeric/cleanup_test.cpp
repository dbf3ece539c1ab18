// The cleanup passes on real models: every pass verifies against the original's answers, a second run
// finds nothing to do, and the files do not grow.

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "onnx_io/reader.h"
#include "passes/framework/pass.h"
#include "passes/framework/runner.h"
#include "tests/support/catch.h"
#include "tests/support/support.h"

namespace sparsefuse {
namespace {

namespace fs = std::filesystem;

std::unique_ptr<Pass> MakePass(std::string_view name) {
  const PassInfo* info = FindPass(name);
  REQUIRE(info);
  return info->make(Params::Defaults(info->params));
}

// Runs `name` and checks what holds for every cleanup pass; returns what it reports.
PassStats RunPass(std::string_view name, Model& model, Context& context,
                  const Reference& reference) {
  INFO("pass " << name);
  const ModelSnapshot before(model);
  const uint64_t bytes_before = model.WeightBytes();
  const PassStats stats = MakePass(name)->Run(model, context);
  REQUIRE_NOTHROW(Verify(model));
  CHECK((ModelSnapshot(model) == before) == !stats.changed);
  CHECK(model.WeightBytes() <= bytes_before + 4096);
  VerifyAgainst(
      reference, [&] { return Session(model, {}); }, Exactness::kLossless);

  const ModelSnapshot once(model);
  MakePass(name)->Run(model, context);
  CHECK(ModelSnapshot(model) == once);
  return stats;
}

int64_t Count(const Model& model, std::string_view op) {
  int64_t count = 0;
  ForEachGraph(model, [&](const Graph& graph) {
    for (const Node* node : graph.Nodes()) count += node->Is(op);
  });
  return count;
}

// The order of the presets.
const std::vector<std::string> kPasses = {"raise-opset",    "remove-dead", "fold-constants",
                                          "fold-batchnorm", "fold-masks",  "remove-dead"};

// Each pass on the model as it is, then all of them in a row, which is returned.
Model RunAll(const Model& original, Context& context) {
  context.teacher = &original;
  const Reference reference = MakeReference(original, context);
  for (const char* name : {"remove-dead", "fold-constants", "fold-batchnorm", "fold-masks"}) {
    Model model = original.Clone();
    RunPass(name, model, context, reference);
  }
  Model model = original.Clone();
  for (const std::string& name : kPasses) RunPass(name, model, context, reference);
  return model;
}

// The trained model in `folder`, compared on its calibration data.
std::optional<Model> RunOnAsset(const std::string& folder,
                                const std::string& file = "model.onnx") {
  const std::optional<fs::path> assets = test::Assets();
  if (!assets) return std::nullopt;
  const Model original = ReadModel(*assets / folder / file);
  const Dataset data = Dataset::Load(*assets / folder / "calibration.npz", original);
  Context context;
  context.calibration = &data;
  context.splits = MakeSplits(data.size(), 0);
  return RunAll(original, context);
}

TEST_CASE("resnet8 loses its normalisations") {
  const std::optional<Model> model = RunOnAsset("resnet8-cifar10");
  if (!model) return;
  CHECK(Count(*model, "BatchNormalization") == 0);
  CHECK(model->opset() == 18);
}

TEST_CASE("kws-dscnn loses its normalisations") {
  const std::optional<Model> model = RunOnAsset("kws-dscnn");
  if (!model) return;
  CHECK(Count(*model, "BatchNormalization") == 0);
}

TEST_CASE("mnist-cnn is raised from opset 9") {
  const std::optional<Model> model = RunOnAsset("mnist-cnn");
  if (!model) return;
  CHECK(model->opset() == 18);
  CHECK(Count(*model, "LogSoftmax") == 1);
  CHECK(Count(*model, "Flatten") == 0);  // the axis is known to be the last
}

TEST_CASE("vit-cifar10 of both exporters stays the same") {
  const std::optional<Model> dynamo = RunOnAsset("vit-cifar10");
  if (!dynamo) return;
  CHECK(dynamo->opset() == 20);
  const std::optional<Model> torchscript = RunOnAsset("vit-cifar10", "model_torchscript.onnx");
  CHECK(torchscript->opset() == 18);
}

TEST_CASE("encoder-sst2 stays the same") { RunOnAsset("encoder-sst2"); }

TEST_CASE("gpt2-style-shakespeare stays the same") { RunOnAsset("gpt2-style-shakespeare"); }

TEST_CASE("shakespeare-gpt-small loses its Dropouts") {
  const std::optional<Model> model = RunOnAsset("shakespeare-gpt-small");
  if (!model) return;
  CHECK(Count(*model, "Dropout") == 0);
}

TEST_CASE("stories260k loses its stored mask and keeps its embedding tied") {
  const std::optional<Model> model = RunOnAsset("stories260k");
  if (!model) return;
  const std::optional<fs::path> assets = test::Assets();
  const Model original = ReadModel(*assets / "stories260k" / "model.onnx");
  CHECK(original.WeightBytes() - model->WeightBytes() > 512 * 512 * 4 - 4096);
  const Value* embedding = model->graph().FindValue("tok_embeddings.weight");
  REQUIRE(embedding);
  CHECK(embedding->uses().size() == 2);
}

TEST_CASE("every model of the zoo stays the same or is left alone") {
  const std::optional<fs::path> assets = test::Assets();
  if (!assets) return;
  for (const auto& entry : fs::recursive_directory_iterator(*assets / "zoo")) {
    if (entry.path().extension() != ".onnx") continue;
    INFO(entry.path());
    std::optional<Model> original;
    try {
      original = ReadModel(entry.path());
    } catch (const UserError& error) {
      CHECK(error.code == ErrorCode::kPath);  // external data in /etc
      continue;
    }
    Context context;
    RunAll(*original, context);
  }
}

}  // namespace
}  // namespace sparsefuse

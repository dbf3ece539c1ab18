// Removal from the real assets, on their own samples.

#include <map>
#include <numeric>

#include "onnx_io/reader.h"
#include "passes/data/dataset.h"
#include "passes/framework/pass.h"
#include "tests/support/catch.h"
#include "tests/support/support.h"
#include "tests/unit/prune/removing.h"

namespace sparsefuse {
namespace {

using test::Drawn;

// Initializers can be added from IR version 4 on.
Model Raised(const std::filesystem::path& path) {
  Model model = ReadModel(path);
  Context context;
  const PassInfo* info = FindPass("raise-opset");
  REQUIRE(info);
  info->make(Params::Defaults(info->params))->Run(model, context);
  return model;
}

void CheckAsset(const std::string& folder, const std::string& file = "model.onnx") {
  const auto assets = test::Assets();
  if (!assets) return;
  const Model model = Raised(*assets / folder / file);
  const Dataset data = Dataset::Load(*assets / folder / "calibration.npz", model);
  std::vector<int64_t> samples(data.fixed_batch() > 0 ? static_cast<size_t>(data.fixed_batch())
                                                      : 4);
  std::iota(samples.begin(), samples.end(), 3);
  const Feeds feeds = data.Gather(samples);
  const Structure structure = FindStructure(model);
  REQUIRE(!structure.modules.empty());
  uint64_t seed = 0;
  std::vector<Keep> all;
  std::map<ModuleKind, int> seen;
  for (const Module& module : structure.modules) {
    // Layers are alike: the first goes down to half and the second to one.
    const int layer = seen[module.kind]++;
    if (layer < 2) {
      const int64_t count = layer == 0 ? module.units / 2 : 1;
      INFO(count << " of " << module.units << " " << Name(module.kind) << " of "
                 << module.producers.front()->Describe());
      test::CheckUnits(model, std::vector{Keep{&module, Drawn(module.units, count, seed++)}},
                       feeds);
    }
    all.push_back({&module, Drawn(module.units, (module.units + 1) / 2, seed++)});
  }
  INFO("all modules");
  test::CheckUnits(model, all, feeds);
  for (size_t i = 0; i < std::min<size_t>(structure.blocks.size(), 3); ++i) {
    INFO(structure.blocks[i].add->Describe());
    test::CheckBlocks(model, std::vector{&structure.blocks[i]}, feeds);
  }
  if (!structure.blocks.empty()) {
    test::CheckBlocks(model, test::Outermost(structure.blocks), feeds);
  }
}

TEST_CASE("removal from networks of other makers") {
  const auto assets = test::Assets();
  if (!assets) return;
  // Not the quantised one: there a difference in the last bit can move an answer by a whole code.
  for (const char* name : {"vww_mobilenetv1_025.onnx", "ad01_autoencoder.onnx", "lprnet.onnx"}) {
    INFO(name);
    const Model model = Raised(*assets / "zoo" / name);
    const Structure structure = FindStructure(model);
    std::vector<Keep> all;
    for (const Module& module : structure.modules) {
      all.push_back({&module, Drawn(module.units, (module.units + 1) / 2, 3)});
    }
    REQUIRE(!all.empty());
    test::CheckUnits(model, all, test::RandomFeeds(model, 1));
  }
}

TEST_CASE("removal from encoder-sst2") { CheckAsset("encoder-sst2"); }
TEST_CASE("removal from gpt2-style-shakespeare") { CheckAsset("gpt2-style-shakespeare"); }
TEST_CASE("removal from shakespeare-gpt-small") { CheckAsset("shakespeare-gpt-small"); }
TEST_CASE("removal from stories260k") { CheckAsset("stories260k"); }
TEST_CASE("removal from vit-cifar10") { CheckAsset("vit-cifar10"); }
TEST_CASE("removal from vit-cifar10, the other exporter") {
  CheckAsset("vit-cifar10", "model_torchscript.onnx");
}
TEST_CASE("removal from resnet8-cifar10") { CheckAsset("resnet8-cifar10"); }
TEST_CASE("removal from kws-dscnn") { CheckAsset("kws-dscnn"); }
TEST_CASE("removal from mnist-cnn") { CheckAsset("mnist-cnn"); }

}  // namespace
}  // namespace sparsefuse

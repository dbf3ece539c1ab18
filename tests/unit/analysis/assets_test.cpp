// What the architectures of the real assets have, no more and no less. Numbers: the assets' README.

#include <fmt/format.h>

#include <map>

#include "onnx_io/reader.h"
#include "passes/analysis/structure.h"
#include "tests/support/catch.h"
#include "tests/support/support.h"

namespace sparsefuse {
namespace {

// "8 attention heads" → how often; modules that are left alone count as "(16 channels)".
std::map<std::string, int> Count(const std::string& asset) {
  const auto assets = test::Assets();
  if (!assets) return {};
  std::map<std::string, int> counts;
  const Model model = ReadModel(*assets / asset);
  const Structure structure = FindStructure(model);
  for (const Module& module : structure.modules) {
    const std::string name = fmt::format("{} {}", module.units, Name(module.kind));
    ++counts[module.reason.empty() ? name : "(" + name + ")"];
  }
  for (const Block& block : structure.blocks) {
    ++counts[fmt::format("{} block", Name(block.kind))];
  }
  return counts;
}

using Counts = std::map<std::string, int>;

void CheckAsset(const std::string& asset, const Counts& expected) {
  if (!test::Assets()) return;
  INFO(asset);
  CHECK(Count(asset) == expected);
}

TEST_CASE("GPT-2 assets: 4 layers of packed queries, keys, values") {
  CheckAsset("gpt2-style-shakespeare/model.onnx", {{"8 attention heads", 4},
                                                   {"(32 query-key width)", 4},
                                                   {"(32 value width)", 4},
                                                   {"1024 neurons", 4},
                                                   {"attention block", 4},
                                                   {"feed-forward block", 4}});
  CheckAsset("shakespeare-gpt-small/model.onnx", {{"4 attention heads", 4},
                                                  {"(32 query-key width)", 4},
                                                  {"(32 value width)", 4},
                                                  {"512 neurons", 4},
                                                  {"attention block", 4},
                                                  {"feed-forward block", 4}});
}

TEST_CASE("BERT asset: 4 layers, and the pooler between encoder and classifier") {
  CheckAsset("encoder-sst2/model.onnx", {{"8 attention heads", 4},
                                         {"(32 query-key width)", 4},
                                         {"(32 value width)", 4},
                                         {"1024 neurons", 4},
                                         {"256 neurons", 1},
                                         {"attention block", 4},
                                         {"feed-forward block", 4}});
}

TEST_CASE("ViT asset: 6 blocks, the same from both exporters") {
  // Queries, keys and values are one axis [3, heads, width], so they have one width. The older
  // export computes 1/√width from the shape, which freezes it.
  Counts expected = {{"6 attention heads", 6},
                     {"768 neurons", 6},
                     {"attention block", 6},
                     {"feed-forward block", 6}};
  CheckAsset("vit-cifar10/model_torchscript.onnx", expected);
  expected["(32 query-key width)"] = 6;
  CheckAsset("vit-cifar10/model.onnx", expected);
}

TEST_CASE("Llama asset: 4 key-value heads with 2 query heads each, RoPE in 4 pairs") {
  // The tables of rotations are shared by all layers, and so is the width that they rotate.
  CheckAsset("stories260k/model.onnx", {{"4 key-value groups", 5},
                                        {"2 query heads per group", 5},
                                        {"(4 query-key width)", 1},
                                        {"(8 value width)", 5},
                                        {"172 neurons", 5},
                                        {"attention block", 5},
                                        {"feed-forward block", 5}});
}

TEST_CASE("convolutional assets") {
  // Three stages; only the first has a shortcut without a convolution.
  CheckAsset("resnet8-cifar10/model.onnx", {{"16 channels", 1},
                                            {"32 channels", 1},
                                            {"64 channels", 1},
                                            {"(16 channels)", 1},
                                            {"(32 channels)", 1},
                                            {"(64 channels)", 1},
                                            {"convolution block", 1}});
  // A channel runs through a pointwise convolution and the depthwise one after it.
  CheckAsset("kws-dscnn/model.onnx", {{"64 channels", 5}});
  CheckAsset("mnist-cnn/model.onnx", {{"10 channels", 1}, {"20 channels", 1}, {"50 neurons", 1}});
}

TEST_CASE("networks of any kind are analysed without a complaint") {
  const auto assets = test::Assets();
  if (!assets) return;
  int models = 0;
  for (const auto& entry : std::filesystem::directory_iterator(*assets / "zoo")) {
    if (entry.path().extension() != ".onnx") continue;
    INFO(entry.path().string());
    const Model model = ReadModel(entry.path());
    const Structure structure = FindStructure(model);
    for (const Module& module : structure.modules) CHECK(module.units > 1);
    ++models;
  }
  CHECK(models > 0);
}

}  // namespace
}  // namespace sparsefuse

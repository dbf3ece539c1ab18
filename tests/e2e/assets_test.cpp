// Quality and size on trained models of every kind, where they are present. Timing is off: all that
// can be quantised is, also what a machine would keep in float because it is not faster there.

#include <nlohmann/json.hpp>

#include "onnx_io/reader.h"
#include "tests/support/catch.h"
#include "tests/support/support.h"

namespace sparsefuse::test {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

struct Asset {
  const char* folder;
  const char* model;
  double metric;      // of the original, on all of the evaluation data: the models' README
  double size_ratio;  // largest
};

// On all of the evaluation data; `emit` as in the configuration.
void CheckAsset(const Asset& asset, const std::string& emit = "custom") {
  const auto assets = Assets();
  if (!assets) return;
  const TempDir dir;
  const fs::path folder = *assets / asset.folder;
  WriteFile(dir / "config.json", R"({"measure": false})");
  const RunResult run =
      RunTool({"compress", "-c", dir / "config.json", "-m", folder / asset.model, "-o", dir / "out",
               "--emit", emit, "--calibration-data", folder / "calibration.npz", "--eval-data",
               folder / "evaluation.npz"});
  INFO(asset.folder << "/" << asset.model << " " << emit << "\n" << run.out << run.err);
  REQUIRE(run.exit_code == 0);
  const json result = json::parse(ReadFile(dir / "out/metrics.json"))["result"];
  CHECK(result["size_ratio"] <= asset.size_ratio);
  const json& metric = result["scores"]["metric"];
  CHECK(metric["before"] == Approx(asset.metric).epsilon(1e-3));
  if (metric["name"] == "accuracy") {
    CHECK(metric["change"] >= -0.005);
  } else {
    CHECK(metric["change"] <= 0.01);
  }
  const json& distances = result["scores"]["distances"][0];
  CHECK(distances["flips"].get<double>() <= 0.04 * distances["answers"].get<double>());
  CHECK(ReadModel(dir / "out/model.onnx").graph().outputs().size() ==
        ReadModel(folder / asset.model).graph().outputs().size());
}

TEST_CASE("resnet8-cifar10 keeps its accuracy") {
  CheckAsset({"resnet8-cifar10", "model.onnx", 0.7405, 0.33});
}

TEST_CASE("mnist-cnn keeps its accuracy") { CheckAsset({"mnist-cnn", "model.onnx", 0.9918, 0.33}); }

TEST_CASE("kws-dscnn keeps its accuracy") { CheckAsset({"kws-dscnn", "model.onnx", 0.9113, 0.33}); }

TEST_CASE("stories260k keeps its perplexity", "[large]") {
  CheckAsset({"stories260k", "model.onnx", 4.507, 0.30});
}

TEST_CASE("vit-cifar10 keeps its accuracy", "[large]") {
  CheckAsset({"vit-cifar10", "model.onnx", 0.7500, 0.30});
}

TEST_CASE("vit-cifar10 by the older exporter keeps its accuracy", "[large]") {
  CheckAsset({"vit-cifar10", "model_torchscript.onnx", 0.7500, 0.30});
}

TEST_CASE("encoder-sst2 keeps its accuracy", "[large]") {
  CheckAsset({"encoder-sst2", "model.onnx", 0.8000, 0.30});
}

TEST_CASE("gpt2-style-shakespeare keeps its perplexity", "[large]") {
  CheckAsset({"gpt2-style-shakespeare", "model.onnx", 4.105, 0.30});
}

TEST_CASE("with standard operators a transformer and a tied embedding stay as good", "[large]") {
  CheckAsset({"vit-cifar10", "model_torchscript.onnx", 0.7500, 0.30}, "standard");
  CheckAsset({"stories260k", "model.onnx", 4.507, 0.30}, "standard");
}

TEST_CASE("any legal model comes through without data, a hostile one is refused") {
  const auto assets = Assets();
  if (!assets) return;
  for (const auto& entry : fs::recursive_directory_iterator(*assets / "zoo")) {
    if (entry.path().extension() != ".onnx") continue;
    const TempDir dir;
    const RunResult run =
        RunTool({"compress", "-m", entry.path(), "-o", dir / "out", "--threads", "2"});
    INFO(entry.path().filename() << "\n" << run.out << run.err);
    const bool hostile = entry.path().filename() == "test_evil_weights.onnx";
    CHECK(run.exit_code == (hostile ? 3 : 0));
    CHECK(fs::exists(dir / "out/model.onnx") == !hostile);
    if (!hostile) ReadModel(dir / "out/model.onnx");
  }
}

}  // namespace
}  // namespace sparsefuse::test

// What eval, benchmark and inspect show.

#include <nlohmann/json.hpp>

#include "onnx_io/reader.h"
#include "tests/cli/fixtures.h"
#include "tests/support/catch.h"

namespace sparsefuse::test {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

json JsonOf(std::vector<std::string> arguments) {
  arguments.insert(arguments.end(), {"--format", "json"});
  const RunResult run = RunTool(arguments);
  INFO(run.err);
  REQUIRE(run.exit_code == 0);
  return json::parse(run.out);
}

TEST_CASE("eval gives the task metric") {
  const Workplace work;
  // One label in ten is set to class 0 (fixtures.cpp), where the model rarely is.
  const json result =
      JsonOf({"eval", "-m", work / "model.onnx", "--eval-data", work / "evaluation.npz"});
  CHECK(result["metric"]["name"] == "accuracy");
  CHECK(result["metric"]["value"] == Approx(0.9).margin(0.04));
  CHECK(result["answers"] == 128);
  const RunResult human =
      RunTool({"eval", "-m", work / "model.onnx", "--eval-data", work / "evaluation.npz"});
  CHECK(Contains(human.out, "accuracy  0."));
  CHECK(Contains(human.out, "over 128 answers"));
}

TEST_CASE("eval beside a reference gives agreement and distances") {
  const Workplace work;
  REQUIRE(RunTool(work.Compress({"-q"})).exit_code == 0);
  const json result = JsonOf({"eval", "-m", work / "out/model.onnx", "--reference",
                              work / "model.onnx", "--eval-data", work / "evaluation.npz"});
  const json& distances = result["distances"][0];
  CHECK(distances["output"] == "y");
  CHECK(distances["answers"] == 128);
  CHECK(distances["agreement"] > 0.9);
  CHECK(distances["agreement"] < 1.00001);
  CHECK(distances["cosine"] > 0.999);
  CHECK(distances["sqnr_db"] > 25);
  CHECK(result["metric"]["interval_95"][0] <= result["metric"]["change"]);
  CHECK(result["metric"]["interval_95"][1] >= result["metric"]["change"]);
  // A model beside itself.
  const json same = JsonOf({"eval", "-m", work / "model.onnx", "--reference", work / "model.onnx",
                            "--eval-data", work / "evaluation.npz"});
  CHECK(same["distances"][0]["flips"] == 0);
  CHECK(same["metric"]["change"] == 0);
}

TEST_CASE("benchmark times models against each other") {
  const Workplace work;
  REQUIRE(RunTool(work.Compress({"-q"})).exit_code == 0);
  const json result =
      JsonOf({"benchmark", "-m", work / "model.onnx", "--against", work / "out/model.onnx",
              "--batch", "1,4", "--data", work / "calibration.npz"});
  REQUIRE(result["batches"].size() == 2);
  CHECK(result["batches"][1]["batch"] == 4);
  for (const json& batch : result["batches"]) {
    REQUIRE(batch["models"].size() == 2);
    CHECK(batch["models"][0]["ratio"] == 1);
    for (const json& model : batch["models"]) {
      CHECK(model["runs"] >= 20);
      CHECK(model["min_ms"] <= model["median_ms"]);
      CHECK(model["median_ms"] <= model["p95_ms"]);
    }
  }
  CHECK(result["tool"]["cpu"].is_string());
}

TEST_CASE("benchmark says that this ONNX Runtime has no CUDA provider") {
  const Workplace work;
  CheckFails({"benchmark", "-m", work / "model.onnx", "--device", "cuda"}, "E_UNSUPPORTED", 4,
             "has no CUDA provider");
}

TEST_CASE("benchmark makes inputs up, of the shape that it is told") {
  const Workplace work;
  const RunResult run = RunTool({"benchmark", "-m", work / "model.onnx"});
  CHECK(run.exit_code == 0);
  CHECK(Contains(run.out, "made-up inputs"));
  CHECK(Contains(run.out, "batch 8"));
  CHECK(RunTool({"benchmark", "-m", work / "model.onnx", "--shape", "x=3x64"}).exit_code == 0);
  CheckFails({"benchmark", "-m", work / "model.onnx", "--shape", "z=3x64"}, "E_USAGE", 2,
             "no input \"z\"");
  CheckFails({"benchmark", "-m", work / "model.onnx", "--shape", "x=3x65"}, "E_ENGINE", 10, "");
}

TEST_CASE("inspect shows what a model consists of and what can be compressed") {
  const Workplace work;
  const json result = JsonOf({"inspect", work / "model.onnx"});
  CHECK(result["bytes"] == fs::file_size(work / "model.onnx"));
  CHECK(result["parameters"] == 64 * 96 + 96 * 32);
  CHECK(result["weights"]["linear"]["bytes"] == 4 * (64 * 96 + 96 * 32));
  CHECK(result["weights"]["other"]["tensors"] == 0);
  CHECK(result["operators"] == json({{"MatMul", 2}, {"Relu", 1}}));
  CHECK(result["inputs"][0]["type"] == "float [batch,64]");
  CHECK(result["compressible"].size() == 2);
  const json& structure = result["structure"];
  REQUIRE(structure["modules"].size() == 1);
  CHECK(structure["modules"][0] ==
        json({{"kind", "neurons"},
              {"units", 96},
              {"parameters_per_unit", 64 + 32},
              {"tensors", {{{"name", "first"}, {"axis", 1}}, {{"name", "second"}, {"axis", 0}}}}}));
  CHECK(structure["blocks"].empty());
  CHECK(structure["frozen"][0]["reason"] == "axis of a graph input");
  const RunResult human = RunTool({"inspect", work / "model.onnx", "-v"});
  CHECK(Contains(human.out, "fc1 (MatMul): linear layer 64→96"));
  CHECK(Contains(human.out, "structure 1 × 96 neurons\n"));
  CHECK(Contains(human.out, "frozen    64 in 1 weight: axis of a graph input\n"));

  REQUIRE(RunTool(work.Compress({"-q"})).exit_code == 0);
  const json compressed = JsonOf({"inspect", work / "out/model.onnx"});
  CHECK(compressed["functions"][0]["name"] == "QuantizedLinear8");
  CHECK(compressed["compressible"].empty());
  CHECK(compressed["structure"]["modules"].empty());
  CHECK(compressed["metadata"].contains("sparsefuse.version"));
}

TEST_CASE("the log file holds what -q keeps from the terminal") {
  const Workplace work;
  REQUIRE(RunTool(work.Compress({"-q", "--nodes-to-exclude", "fc9", "--log-file", work / "log"}))
              .err.empty());
  CHECK(Contains(ReadFile(work / "log"), "fc9"));
}

TEST_CASE("analyze shows what each option costs, and writes it where asked") {
  const Workplace work;
  // 57 samples to learn from do not do for 96 neurons, but for bits.
  const std::vector<std::string> analyze = {"analyze", "-m", work / "model.onnx",
                                            "--calibration-data", work / "calibration.npz"};
  const json result = JsonOf(analyze);
  CHECK(
      Contains(result["modules"][0]["left_out"].get<std::string>(), "rows of data for 96 inputs"));
  REQUIRE(result["matrices"].size() == 2);
  double before = 0;
  for (const json& option : result["matrices"][0]["bits"]) {
    CHECK(option["expected"] > before);  // from 8 bits down
    before = option["expected"];
  }
  CHECK(result["agreement"]["bits"]["options"] == 4);

  const std::string files = Snapshot(work.path());
  std::vector<std::string> human = analyze;
  const RunResult shown = RunTool(human);
  CHECK(shown.exit_code == 0);
  CHECK(Contains(shown.out, "64×96"));
  CHECK(Contains(shown.out, "rank correlation of predicted with measured KL"));
  CHECK(Snapshot(work.path()) == files);

  human.insert(human.end(), {"-o", work / "out"});
  REQUIRE(RunTool(human).exit_code == 0);
  CHECK(json::parse(ReadFile(work.path() / "out/sensitivity.json")) == result);
  CheckFails(human, "E_OUTPUT_EXISTS", 6, "sensitivity.json: exists already");
  human.push_back("--overwrite");
  CHECK(RunTool(human).exit_code == 0);
  CheckFails({"analyze", "-m", work / "model.onnx"}, "E_USAGE", 2, "--calibration-data is missing");
}

}  // namespace
}  // namespace sparsefuse::test

// The whole tool on the demo of the repository: what it promises about size and quality.

#include <nlohmann/json.hpp>
#include <numeric>

#include "onnx_io/reader.h"
#include "passes/analysis/inventory.h"
#include "passes/engine/evaluate.h"
#include "passes/framework/config.h"
#include "tests/support/catch.h"
#include "tests/support/support.h"

namespace sparsefuse::test {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

fs::path Demo() { return SourceDir() / "configs/demo"; }

double Perplexity(const fs::path& path, const fs::path& operator_library) {
  const Model model = ReadModel(path);
  const Dataset data = Dataset::Load(Demo() / "evaluation.npz", model);
  std::vector<int64_t> samples(static_cast<size_t>(data.size()));
  std::iota(samples.begin(), samples.end(), 0);
  const Session session(path, {.threads = 2, .operator_library = operator_library});
  const TaskScore score = EvaluateModel(session, data, samples);
  CHECK(score.metric == TaskMetric::kPerplexity);
  CHECK(score.count == 384 * 128);
  return score.Value();
}

// What `result` in metrics.json must show of the demo.
void CheckPromises(const json& result) {
  CHECK(result["size_ratio"] <= 0.30);
  CHECK(result["verification"]["level"] == "full");
  const json& distances = result["scores"]["distances"][0];
  CHECK(distances["flips"].get<double>() <= 0.04 * distances["answers"].get<double>());
  CHECK(result["scores"]["metric"]["before"] == Approx(4.267).margin(0.001));
  CHECK(result["scores"]["metric"]["change"] <= 0.01);
}

TEST_CASE("the demo as it is: smaller, as good, repeatable") {
  const TempDir dir;
  const RunResult run = RunTool({"compress", "-c", Demo() / "pipeline.json", "-o", dir / "out"});
  INFO(run.out << run.err);
  REQUIRE(run.exit_code == 0);
  CheckPromises(json::parse(ReadFile(dir / "out/metrics.json"))["result"]);
  CHECK(fs::file_size(dir / "out/model.onnx") <=
        0.30 * double(fs::file_size(Demo() / "model.onnx")));

  // Given its own resolved configuration the tool repeats itself.
  const RunResult again = RunTool(
      {"compress", "-c", dir / "out/resolved_config.json", "-o", dir / "again", "--threads", "1"});
  INFO(again.err);
  REQUIRE(again.exit_code == 0);
  CHECK(ReadFile(dir / "again/model.onnx") == ReadFile(dir / "out/model.onnx"));
}

TEST_CASE("the demo with its own operators: the same with and without their library") {
  const TempDir dir;
  // Without timing every layer takes the operator, whatever this machine and build would choose.
  json config = json::parse(ReadFile(Demo() / "pipeline.json"));
  config["measure"] = false;
  config["input_model"] = Demo() / "model.onnx";
  config["calibration_data"]["path"] = Demo() / "calibration.npz";
  config["evaluation"]["path"] = Demo() / "evaluation.npz";
  WriteFile(dir / "config.json", config.dump());
  const RunResult run = RunTool({"compress", "-c", dir / "config.json", "-o", dir / "out"});
  INFO(run.out << run.err);
  REQUIRE(run.exit_code == 0);
  const json result = json::parse(ReadFile(dir / "out/metrics.json"))["result"];
  CheckPromises(result);
  CHECK(result["custom_operators"] == true);

  const double original = Perplexity(Demo() / "model.onnx", {});
  // A machine on which the standard form of every layer is faster gets no library.
  const fs::path library = dir / "out/libsparsefuse_ops.so";
  const double with =
      Perplexity(dir / "out/model.onnx", fs::exists(library) ? library : fs::path());
  const double without = Perplexity(dir / "out/model.onnx", {});
  CHECK(original == Approx(4.267).margin(0.001));
  CHECK(with <= 1.01 * original);
  CHECK(without <= 1.01 * original);
  CHECK(with == Approx(result["scores"]["metric"]["after"].get<double>()).epsilon(1e-4));
}

TEST_CASE("every preset makes a verified model of the demo") {
  for (const Preset& preset : Presets()) {
    const TempDir dir;
    const std::string name(preset.name);
    const RunResult run =
        RunTool({"compress", "-m", Demo() / "model.onnx", "-o", dir / "out", "--preset", name,
                 "--calibration-data", Demo() / "calibration.npz", "--eval-data",
                 Demo() / "evaluation.npz", "--max-drop", "0.01", "--target-size", "0.3"});
    INFO(name << "\n" << run.out << run.err);
    CHECK(run.exit_code == 0);
    const Model result = ReadModel(dir / "out/model.onnx");
    CHECK(ReadFile(dir / "out/resolved_config.json").find("decisions") != std::string::npos);
    if (name.starts_with("standard")) {
      CHECK_FALSE(UsesOperatorLibrary(result));
      CHECK(result.functions().empty());
      CHECK_FALSE(fs::exists(dir / "out/libsparsefuse_ops.so"));
    }
  }
}

TEST_CASE("a gated model is verified by its 8-bit reading, and benchmark counts its easy rows",
          "[large]") {
  const TempDir dir;
  WriteFile(dir / "config.json", R"({"measure": false, "passes": [
      {"type": "raise-opset"}, {"type": "fold-constants"}, {"type": "remove-dead"},
      {"type": "quantize", "weights": "nested", "gate_share": 1, "nested_encoding": "nested1", "max_flips": 1}]})");
  setenv("SPARSEFUSE_GATE", "always", 1);
  const RunResult made =
      RunTool({"compress", "-c", dir / "config.json", "-m", Demo() / "model.onnx", "-o",
               dir / "out", "--calibration-data", Demo() / "calibration.npz"});
  unsetenv("SPARSEFUSE_GATE");
  INFO(made.out << made.err);
  REQUIRE(made.exit_code == 0);
  CHECK_THAT(made.out, Catch::Contains("gate: 100 % of the rows of "));
  const auto count = [&](const char* shape) {
    const RunResult run = RunTool({"benchmark", "-m", dir / "out/model.onnx", "--shape", shape,
                                   "--batch", "1", "--format", "json"});
    REQUIRE(run.exit_code == 0);
    return json::parse(run.out)["gate"];
  };
  const json few = count("input_ids=1x8");
  CHECK(few["rows"] > 0);
  CHECK(few["rows_in_4_bits"].get<double>() > 0.3 * few["rows"].get<double>());
  CHECK(count("input_ids=1x9").is_null());
}

}  // namespace
}  // namespace sparsefuse::test

// compress measures layers once on a machine; decided runs not at all.

#include <nlohmann/json.hpp>

#include "tests/cli/fixtures.h"
#include "tests/support/catch.h"

namespace sparsefuse::test {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

json Decisions(const fs::path& folder) {
  return json::parse(ReadFile(folder / "resolved_config.json"))["decisions"]["quantize"]["linear"];
}

TEST_CASE("layers are timed once on a machine, and never where it is decided already") {
  const Workplace work;
  WriteFile(work / "measured.json", R"({"passes": [{"type": "quantize"}]})");
  const auto compress = [&](const std::string& config, const std::string& output) {
    const RunResult run = RunTool({"compress", "-m", work / "model.onnx", "-c", work / config, "-o",
                                   work / output, "--calibration-data", work / "calibration.npz"});
    INFO(run.out << run.err);
    CHECK(run.exit_code == 0);
  };
  const fs::path cache = CacheHome() / "sparsefuse/latency.json";
  compress("measured.json", "first");
  CHECK(Contains(ReadFile(cache), "64x96, 1 rows"));
  CHECK(Contains(ReadFile(cache), "96x32, 8 rows"));
  const json decisions = Decisions(work / "first");
  REQUIRE(decisions.size() == 2);
  for (const json& layer : decisions) {
    CHECK(layer["speedup"] > 0);
    CHECK(layer["over_other"] >= 1);
  }
  // Timed again, some second decimal would differ.
  compress("measured.json", "second");
  CHECK(Decisions(work / "second") == decisions);

  fs::remove(cache);
  compress("first/resolved_config.json", "again");
  CHECK(ReadFile(work / "again/model.onnx") == ReadFile(work / "first/model.onnx"));
  CHECK(Decisions(work / "again") == decisions);
  compress("fast.json", "unmeasured");
  CHECK_FALSE(fs::exists(cache));
}

}  // namespace
}  // namespace sparsefuse::test

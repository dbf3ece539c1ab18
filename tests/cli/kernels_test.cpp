// kernels: the table against the CPU and the environment, and the operators against the library.

#include <algorithm>
#include <nlohmann/json.hpp>

#include "kernels/linear/linear.h"
#include "tests/cli/fixtures.h"
#include "tests/support/catch.h"

namespace sparsefuse::test {
namespace {

using nlohmann::json;

json Kernels() {
  const RunResult run = RunTool({"kernels", "--format", "json"});
  INFO(run.err);
  REQUIRE(run.exit_code == 0);
  return json::parse(run.out);
}

TEST_CASE("kernels lists every implementation and uses the best one that runs") {
  const json kernels = Kernels()["kernels"];
  REQUIRE(kernels.size() == AllLinearKernels().size());
  bool better_runs = false;
  for (size_t i = 0; i < kernels.size(); ++i) {
    const LinearKernel& kernel = *AllLinearKernels()[i];
    const bool runs = DetectCpuFeatures().Contains(kernel.needs);
    INFO(kernel.name);
    CHECK(kernels[i]["name"] == kernel.name);
    CHECK(kernels[i]["runs_here"] == runs);
    CHECK(kernels[i]["used"] == (runs && !better_runs));
    const std::string reason = kernels[i]["reason"];
    CHECK(reason.find(!runs         ? "the CPU lacks "
                      : better_runs ? " is faster"
                                    : "used") != std::string::npos);
    better_runs |= runs;
  }
}

TEST_CASE("kernels follows SPARSEFUSE_ISA and shows the environment") {
  const EnvironmentVariable isa("SPARSEFUSE_ISA", "ref"), gate("SPARSEFUSE_GATE", "always");
  const json shown = Kernels();
  for (const json& kernel : shown["kernels"]) CHECK(kernel["used"] == (kernel["name"] == "ref"));
  CHECK(shown["environment"]["SPARSEFUSE_ISA"] == "ref");
  CHECK(Contains(RunTool({"kernels"}).out, "SPARSEFUSE_GATE=always\n"));
}

TEST_CASE("kernels says that no kernel has the name in SPARSEFUSE_ISA") {
  const EnvironmentVariable isa("SPARSEFUSE_ISA", "sse9");
  const json shown = Kernels();
  for (const json& kernel : shown["kernels"]) CHECK(kernel["used"] == false);
  CHECK(Contains(shown["problem"].get<std::string>(), "SPARSEFUSE_ISA=sse9 is none of"));
  CHECK(Contains(RunTool({"kernels"}).out, "no kernel can be used: SPARSEFUSE_ISA=sse9"));
}

TEST_CASE("kernels names every operator with the activations that it comes with") {
  const json operators = Kernels()["operators"];
  CHECK(operators.size() == 8);
  const std::string table = RunTool({"kernels"}).out;
  for (const json& op : operators) {
    const bool sparse = op["block_sparse"];
    CHECK(op["name"].get<std::string>().starts_with(sparse ? "BlockSparseLinear"
                                                           : "QuantizedLinear"));
    CHECK(op["with_activation"].size() == 4);
    CHECK(Contains(table, '\n' + op["name"].get<std::string>() + ' '));
  }
}

TEST_CASE("kernels times a layer once, then remembers") {
  const std::vector<std::string> arguments = {"kernels",   "--shape", "96x64",    "--rows", "2,5",
                                              "--density", "0.5",     "--format", "json"};
  const RunResult first = RunTool(arguments);
  INFO(first.err);
  REQUIRE(first.exit_code == 0);
  const json layer = json::parse(first.out)["layer"];
  CHECK(layer["inputs"] == 96);
  CHECK(layer["outputs"] == 64);
  REQUIRE(layer["by_rows"].size() == 2);
  CHECK(layer["by_rows"][1]["rows"] == 5);
  for (const json& column : layer["by_rows"]) {
    // float, standard int8, MatMulNBits, each of our encodings dense and block-sparse
    REQUIRE(column["times"].size() == 11);
    for (const json& time : column["times"]) CHECK(time["ms"] > 0);
    const json& times = column["times"];
    CHECK(times[0]["form"] == "float");
    CHECK(times[10]["form"] == "BlockSparseLinearNested4 0.5");
    // The fastest of the first three, if it gains enough.
    double best = 0;
    std::string fastest;
    for (size_t i = 1; i < 3; ++i) {
      if (times[i]["speedup"] > best) fastest = times[i]["form"];
      best = std::max(best, times[i]["speedup"].get<double>());
    }
    CHECK(column["quantize_takes"] == (best >= 1.03 ? fastest : "float"));
  }
  const auto cache = CacheHome() / "sparsefuse/latency.json";
  CHECK(Contains(ReadFile(cache), "96x64+bias, 4 rows"));
  CHECK(RunTool(arguments).out == first.out);

  WriteFile(cache, "{");
  const RunResult again = RunTool(arguments);
  CHECK(again.exit_code == 0);
  CHECK(Contains(again.err, "is no latency table of this version"));
  CHECK(Contains(ReadFile(cache), "96x64+bias, 8 rows"));
  CHECK(
      Contains(RunTool({"kernels", "--shape", "96x64", "--rows", "2"}).out, "\nQuantizedLinear8 "));
}

TEST_CASE("kernels needs the library") {
  CheckFails({"kernels", "--operator-library", "missing.so"}, "E_READ", 5,
             "missing.so: no such operator library");
}

}  // namespace
}  // namespace sparsefuse::test

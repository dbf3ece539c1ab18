// kernels: the table against the CPU and the environment, and the operators against the library.

#include <cstdlib>
#include <nlohmann/json.hpp>

#include "kernels/linear/linear.h"
#include "tests/cli/fixtures.h"
#include "tests/support/catch.h"

namespace sparsefuse::test {
namespace {

using nlohmann::json;

// An environment variable for as long as the object lives; tools started meanwhile see it.
class Environment {
 public:
  Environment(const char* name, const char* value) : name_(name) { setenv(name, value, 1); }
  ~Environment() { unsetenv(name_); }

 private:
  const char* name_;
};

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
  const Environment isa("SPARSEFUSE_ISA", "ref"), gate("SPARSEFUSE_GATE", "always");
  const json shown = Kernels();
  for (const json& kernel : shown["kernels"]) CHECK(kernel["used"] == (kernel["name"] == "ref"));
  CHECK(shown["environment"]["SPARSEFUSE_ISA"] == "ref");
  CHECK(Contains(RunTool({"kernels"}).out, "SPARSEFUSE_GATE=always\n"));
}

TEST_CASE("kernels says that no kernel has the name in SPARSEFUSE_ISA") {
  const Environment isa("SPARSEFUSE_ISA", "sse9");
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

TEST_CASE("kernels needs the library") {
  CheckFails({"kernels", "--operator-library", "missing.so"}, "E_READ", 5,
             "missing.so: no such operator library");
}

}  // namespace
}  // namespace sparsefuse::test

// compile and compress --target: kernels for GPUs beside a model. Needs no GPU; where CUDA's
// compiler is not here, what needs it says so.

#include <nlohmann/json.hpp>

#include "tests/cli/fixtures.h"
#include "tests/support/catch.h"

namespace sparsefuse::test {
namespace {

using nlohmann::json;

bool HasCompiler() {
  if (!std::string_view(SPARSEFUSE_CUDA_HOME).empty()) return true;
  WARN("skipped: CUDA's compiler is not here");
  return false;
}

// The workplace with a compressed model in "out", made without code for GPUs.
void Compress(const Workplace& work) {
  const RunResult run = RunTool(work.Compress());
  INFO(run.err);
  REQUIRE(run.exit_code == 0);
}

TEST_CASE("compile refuses what it cannot compile for, and writes nothing") {
  const Workplace work;
  Compress(work);
  const std::string before = Snapshot(work.path());
  const std::string model = work / "out/model.onnx";
  CheckFails({"compile", "-m", model}, "E_USAGE", 2, "--target is missing");
  CheckFails({"compile", "-m", model, "--target", "cuda:sm_70"}, "E_USAGE", 2, "cuda:sm_80");
  CheckFails({"compile", "-m", work / "none.onnx", "--target", "cuda:sm_80"}, "E_READ", 5,
             "none.onnx");
  const EnvironmentVariable home("CUDA_HOME", "/nowhere");
  CheckFails({"compile", "-m", model, "--target", "cuda:sm_80"}, "E_READ", 5, "/nowhere/bin");
  CheckFails(work.Compress({"--target", "cuda:sm_80", "--overwrite"}), "E_READ", 5, "/nowhere/bin");
  CHECK(Snapshot(work.path()) == before);
}

TEST_CASE("a compiler that fails is quoted, and nothing is written") {
  const Workplace work;
  Compress(work);
  const std::filesystem::path compiler = work / "cuda/bin/nvcc";
  std::filesystem::create_directories(compiler.parent_path());
  WriteFile(compiler, "#!/bin/sh\necho 'model.cu(1): error: out of luck' >&2\nexit 3\n");
  std::filesystem::permissions(compiler, std::filesystem::perms::owner_all);
  const std::string before = Snapshot(work.path());
  const EnvironmentVariable home("CUDA_HOME", (work / "cuda").c_str());
  const std::string line =
      CheckFails({"compile", "-m", work / "out/model.onnx", "--target", "cuda:sm_80"}, "E_ENGINE",
                 10, "error: out of luck");
  CHECK(Contains(line, "exit code 3"));
  CHECK(Snapshot(work.path()) == before);
}

TEST_CASE("a model without layers of ours has nothing to compile, and no compiler is asked for") {
  const Workplace work;
  const EnvironmentVariable home("CUDA_HOME", "/nowhere");
  const std::string before = Snapshot(work.path());
  const RunResult run = RunTool({"compile", "-m", work / "model.onnx", "--target", "cuda:sm_80"});
  INFO(run.err);
  CHECK(run.exit_code == 0);
  CHECK(Contains(run.out, "nothing compiled"));
  CHECK(Snapshot(work.path()) == before);
}

TEST_CASE("code lies beside the model, by compile and by compress alike") {
  if (!HasCompiler()) return;
  const EnvironmentVariable home("CUDA_HOME", SPARSEFUSE_CUDA_HOME);
  const Workplace work;
  Compress(work);
  const std::string model = ReadFile(work / "out/model.onnx");
  const std::vector<std::string> compile = {
      "compile",  "-m",  work / "out/model.onnx", "--target", "cuda:sm_80,sm_90a",
      "--format", "json"};
  const RunResult run = RunTool(compile);
  INFO(run.err);
  REQUIRE(run.exit_code == 0);
  const json shown = json::parse(run.out);
  CHECK(shown == json::parse(ReadFile(work / "out/cuda.json")));
  REQUIRE(shown["targets"].size() == 2);
  for (const json& target : shown["targets"]) {
    const std::string code = ReadFile(work / ("out/" + std::string(target["file"])));
    CHECK(code.size() == target["bytes"]);
    CHECK(
        code.starts_with("\x7f"
                         "ELF"));
    REQUIRE(target["layers"].size() == 2);
    for (const json& layer : target["layers"]) {
      for (const json& kernel : layer["kernels"]) CHECK(Contains(code, std::string(kernel)));
    }
  }
  CHECK(ReadFile(work / "out/model.onnx") == model);
  CheckFails({compile.begin(), compile.end() - 2}, "E_OUTPUT_EXISTS", 6, "model-sm_80.cubin");

  const std::string first = ReadFile(work / "out/model-sm_90a.cubin");
  std::filesystem::remove(work / "out/model-sm_90a.cubin");
  const RunResult again = RunTool(work.Compress({"--target", "cuda:sm_90a", "--overwrite"}));
  INFO(again.err);
  REQUIRE(again.exit_code == 0);
  CHECK(ReadFile(work / "out/model.onnx") == model);
  CHECK(ReadFile(work / "out/model-sm_90a.cubin") == first);
  const json config = json::parse(ReadFile(work / "out/resolved_config.json"));
  CHECK(config["output"]["targets"] == json{"cuda:sm_90a"});
  namespace fs = std::filesystem;
  const fs::path libraries = fs::path(SPARSEFUSE_OPS_LIBRARY).parent_path();
  CHECK(fs::exists(work / "out/libsparsefuse_cuda.so") ==
        fs::exists(libraries / "libsparsefuse_cuda.so"));
}

}  // namespace
}  // namespace sparsefuse::test

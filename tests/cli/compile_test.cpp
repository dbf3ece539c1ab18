// compile and compress --target: kernels for GPUs beside a model. Needs no GPU: one is imitated, by
// a library that answers as libsparsefuse_cuda.so would (fake_cuda/), with a compiler that compiles
// nothing. Where CUDA's compiler is not here, what needs it says so.

#include <nlohmann/json.hpp>

#include "tests/cli/fixtures.h"
#include "tests/support/catch.h"

namespace sparsefuse::test {
namespace {

namespace fs = std::filesystem;
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
      "compile",  "-m",  work / "out/model.onnx", "--target", "cuda:sm_80,sm_90a", "--no-measure",
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
  const fs::path libraries = fs::path(SPARSEFUSE_OPS_LIBRARY).parent_path();
  CHECK(fs::exists(work / "out/libsparsefuse_cuda.so") ==
        fs::exists(libraries / "libsparsefuse_cuda.so"));
}

// A compressed model ("out"), a compiler whose code is the source, and an operator library with the
// imitated CUDA library beside it.
class FakeGpu {
 public:
  FakeGpu() {
    Compress(work);
    const fs::path compiler = work / "cuda/bin/nvcc";
    fs::create_directories(compiler.parent_path());
    WriteFile(compiler, "#!/bin/sh\nwhile [ $# -gt 2 ]; do shift; done\ncp \"$2\" \"$1\"\n");
    fs::permissions(compiler, fs::perms::owner_all);
    fs::create_directory(work / "lib");
    fs::copy_file(SPARSEFUSE_OPS_LIBRARY, library);
    fs::copy_file(SPARSEFUSE_FAKE_CUDA, cuda_library);
  }
  std::vector<std::string> Compile(const std::vector<std::string>& more = {}) const {
    std::vector<std::string> arguments = {"compile",  "-m",
                                          model,      "-o",
                                          code,       "--operator-library",
                                          library,    "--overwrite",
                                          "--target", "cuda:sm_80,sm_90a"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return arguments;
  }
  json Compiled(const std::vector<std::string>& more = {}) const {
    std::vector<std::string> arguments = Compile(more);
    arguments.insert(arguments.end(), {"--format", "json"});
    const RunResult run = RunTool(arguments);
    INFO(run.err);
    REQUIRE(run.exit_code == 0);
    CHECK(run.out == ReadFile(code + "/cuda.json"));
    return json::parse(run.out);
  }

  const Workplace work;
  const std::string model = work / "out/model.onnx", code = work / "code";
  const std::string library = work / "lib/libsparsefuse_ops.so";
  const std::string cuda_library = work / "lib/libsparsefuse_cuda.so";

 private:
  const EnvironmentVariable home_{"CUDA_HOME", (work / "cuda").c_str()};
};

// By the cost model for any reason that contains `reason`.
void CheckByModel(const json& target, std::string_view reason) {
  INFO(target);
  CHECK(target["chosen_by"] == "model");
  CHECK(Contains(std::string(target["reason"]), reason));
  CHECK_FALSE(target.contains("measured_on"));
  for (const json& layer : target["layers"]) {
    CHECK(layer["tile_outputs"] == 64);  // wide tiles leave multiprocessors idle
    REQUIRE(layer["tiles"].size() == 2);
    for (const json& tile : layer["tiles"]) {
      CHECK(tile["predicted_us"] > 0);
      CHECK_FALSE(tile.contains("measured_us"));
    }
  }
}

TEST_CASE("tiles are those that the GPU of the target is quickest by") {
  const FakeGpu fake;
  const EnvironmentVariable gpu("FAKE_GPU", "sm_90a");
  const EnvironmentVariable log("FAKE_GPU_LOG", (fake.work / "log").c_str());
  const json shown = fake.Compiled({"--rows", "600"});
  CheckByModel(shown["targets"][0],
               "no GPU here is sm_80: Older Card (sm_00), Imitated Card (sm_90a)");
  const json& target = shown["targets"][1];
  CHECK(target["chosen_by"] == "measurement");
  CHECK(target["measured_on"] == "Imitated Card");
  CHECK_FALSE(target.contains("reason"));
  const std::string code = ReadFile(fake.code + "/model-sm_90a.cubin");
  const struct {
    double wide_us;
    int64_t tile;
    const char *there, *not_there;
  } expected[] = {{10, 128, "64x96_s0_dense_f32_t4", "64x96_s0_dense_f32_t2"},
                  {40, 64, "96x32_s0_dense_f32_t2", "96x32_s0_dense_f32_t4"}};
  REQUIRE(target["layers"].size() == 2);
  for (size_t i = 0; i < 2; ++i) {
    const json& layer = target["layers"][i];
    INFO(layer);
    CHECK(layer["tile_outputs"] == expected[i].tile);
    REQUIRE(layer["tiles"].size() == 2);
    CHECK(layer["tiles"][0]["outputs"] == 128);
    CHECK(layer["tiles"][0]["measured_us"] == expected[i].wide_us);
    CHECK(layer["tiles"][1]["measured_us"] == 20);
    // What is published has the chosen tile alone.
    CHECK(Contains(code, expected[i].there));
    CHECK_FALSE(Contains(code, expected[i].not_there));
    CHECK(Contains(layer["kernels"][2].get<std::string>(), expected[i].there));
  }
  CHECK(ReadFile(fake.work / "log") ==
        "64x96 600 rows by 128\n64x96 600 rows by 64\n"
        "96x32 600 rows by 128\n96x32 600 rows by 64\n");
  const RunResult text = RunTool(fake.Compile());
  INFO(text.out);
  CHECK(Contains(text.out, "tiles chosen by the model: no GPU here is sm_80"));
  CHECK(Contains(text.out, "tiles chosen by measurement on Imitated Card"));
  CHECK(Contains(text.out, "; measured 10 µs by tiles of 128, 20 µs by tiles of 64"));
}

TEST_CASE("a tile that cannot be timed ends compile with its name, and nothing is written") {
  const FakeGpu fake;
  const EnvironmentVariable gpu("FAKE_GPU", "sm_90a");
  const EnvironmentVariable fails("FAKE_GPU_FAILS", "64");
  const std::string line =
      CheckFails(fake.Compile(), "E_ENGINE", 10,
                 "tiles of 64 outputs cannot be timed on Imitated Card: out of luck");
  CHECK(Contains(line, "model.onnx"));
  CHECK(Contains(line, "node \"a\" (sparsefuse.QuantizedLinear8)"));
  CHECK(Contains(line, "--no-measure"));
  CHECK_FALSE(fs::exists(fake.code));
}

TEST_CASE("without a GPU tiles are chosen by the cost model, and the reason is said") {
  const FakeGpu fake;
  const auto check = [&](std::string_view reason, const std::vector<std::string>& more = {}) {
    const json report = fake.Compiled(more);
    for (const json& target : report["targets"]) CheckByModel(target, reason);
  };
  check("no GPU here: no driver, in a test");
  const RunResult text = RunTool(fake.Compile());
  CHECK(Contains(text.out, "tiles chosen by the model: no GPU here: no driver, in a test"));
  {
    const EnvironmentVariable gpu("FAKE_GPU", "sm_90a");
    check("measuring is turned off", {"--no-measure"});
    fs::remove(fake.cuda_library);
    check("libsparsefuse_cuda.so is not beside the operator library");
  }
  // One that is there and is none must be mended.
  WriteFile(fake.cuda_library, "no library");
  CheckFails(fake.Compile(), "E_ENGINE", 10, "libsparsefuse_cuda.so: cannot be loaded");
  check("measuring is turned off", {"--no-measure"});
  fs::copy_file(SPARSEFUSE_OPS_LIBRARY, fake.cuda_library, fs::copy_options::overwrite_existing);
  CheckFails(fake.Compile(), "E_ENGINE", 10, "it lacks SparsefuseFindCudaDevices");
  // The one beside the tool, if it was built, is of the tool's build.
  const RunResult own =
      RunTool({"compile", "-m", fake.model, "--target", "cuda:sm_86", "-o", fake.code});
  CHECK_FALSE(Contains(own.err, "of build"));
}

TEST_CASE("what compress measured is in its decisions, and not measured again") {
  const FakeGpu fake;
  const auto compress = [&](const std::string& config, const std::string& output) {
    return RunTool({"compress", "-m", fake.work / "model.onnx", "-c", config, "-o",
                    fake.work / output, "--target", "cuda:sm_90a", "--operator-library",
                    fake.library});
  };
  const auto target = [&](const std::string& output) {
    return json::parse(ReadFile(fake.work / (output + "/cuda.json")))["targets"][0];
  };
  const EnvironmentVariable gpu("FAKE_GPU", "sm_90a");
  REQUIRE(compress(fake.work / "fast.json", "off").exit_code == 0);
  CheckByModel(target("off"), "measuring is turned off");  // by "measure": false

  json config = {{"measure", true}, {"passes", {{{"type", "quantize"}}}}};
  // Decided ahead, so that what this machine is quickest by does not matter.
  config["decisions"] = json::parse(ReadFile(fake.work / "off/resolved_config.json"))["decisions"];
  config["decisions"].erase("cuda");
  WriteFile(fake.work / "measure.json", config.dump());
  const RunResult first = compress(fake.work / "measure.json", "first");
  INFO(first.err);
  REQUIRE(first.exit_code == 0);
  CHECK(target("first")["chosen_by"] == "measurement");
  CHECK(target("first")["layers"][0]["tile_outputs"] == 128);

  const EnvironmentVariable gone("FAKE_GPU", nullptr);
  REQUIRE(compress(fake.work / "first/resolved_config.json", "again").exit_code == 0);
  CHECK(target("again")["layers"] == target("first")["layers"]);
  CHECK(target("again")["measured_on"] == "Imitated Card");
  CHECK(ReadFile(fake.work / "again/model-sm_90a.cubin") ==
        ReadFile(fake.work / "first/model-sm_90a.cubin"));

  json incomplete = json::parse(ReadFile(fake.work / "first/resolved_config.json"));
  for (json& layer : incomplete["decisions"]["cuda"]["sm_90a"]["microseconds"]) layer.erase("64");
  WriteFile(fake.work / "first/incomplete.json", incomplete.dump());
  const RunResult failed = compress(fake.work / "first/incomplete.json", "failed");
  CHECK(failed.exit_code == 2);
  CHECK(Contains(failed.err, "$.decisions.cuda.sm_90a.microseconds: no time of"));
}

}  // namespace
}  // namespace sparsefuse::test

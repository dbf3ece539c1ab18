// The command line itself: verbs, flags, their errors, help and version.

#include "passes/framework/pass.h"
#include "tests/cli/fixtures.h"
#include "tests/support/catch.h"

namespace sparsefuse::test {
namespace {

TEST_CASE("usage errors name the flag and the nearest one") {
  struct Case {
    std::vector<std::string> arguments;
    std::string text;
  };
  const Case cases[] = {
      {{}, "no command given"},
      {{"compres"}, "unknown command \"compres\"; did you mean compress?"},
      {{"xyz"}, "commands: compress, analyze, compile, eval, benchmark, inspect, passes, kernels"},
      {{"--nonsense"}, "unknown option --nonsense"},
      {{"compress"}, "-m (the model) is missing"},
      {{"compress", "-m", "a.onnx"}, "-o (the output folder) is missing"},
      {{"compress", "--calibration-dat", "x"}, "did you mean --calibration-data?"},
      {{"compress", "--calibration-dat=x"}, "did you mean --calibration-data?"},
      {{"compress", "-m", "a.onnx", "-o", "out", "stray"}, "unexpected argument \"stray\""},
      {{"compress", "-m", "a.onnx", "-o", "out", "--max-drop", "much"}, "--max-drop"},
      {{"compress", "-m", "a.onnx", "-o", "out", "--max-drop", "2"}, "--max-drop"},
      {{"compress", "-m", "a.onnx", "-o", "out", "--threads", "0"}, "--threads"},
      {{"compress", "-m", "a.onnx", "-o", "out", "--emit", "both"}, "--emit"},
      {{"compress", "-m", "a.onnx", "-m", "b.onnx"}, "--model"},
      {{"compress", "-m", "a.onnx", "-o", "out", "-c", "c.json", "--preset", "int8"}, "--preset"},
      {{"compress", "-m", "a.onnx", "-o", "out", "--format", "xml"}, "--format"},
      {{"compress", "-m", "a.onnx", "-o", "out", "--nodes-to-exclude", "("}, "--nodes-to-exclude"},
      {{"compress", "-m", "a.onnx", "-o", "out", "--max-drop", "0.1"},
       "max_drop needs --eval-data or --calibration-data"},
      {{"compress", "-m", "a.onnx", "-o", "out", "--target-latency", "0.5"}, "latency_ratio needs"},
      {{"compress", "-m"}, "-m"},
      {{"analyze"}, "-m (the model) is missing"},
      {{"eval"}, "-m (the model) is missing"},
      {{"eval", "-m", "a.onnx"}, "--eval-data is missing"},
      {{"inspect"}, "the model is missing"},
      {{"benchmark"}, "-m (the model) is missing"},
      {{"benchmark", "-m", "a.onnx", "--shape", "x=1xx2"}, "--shape"},
      {{"benchmark", "-m", "a.onnx", "--batch", "1,0"}, "--batch"},
      {{"benchmark", "-m", "a.onnx", "--device", "tpu"}, "--device"},
      {{"compile"}, "-m (the model) is missing"},
      {{"compile", "-m", "a.onnx", "--target", "cuda:sm_80", "--rows", "16"}, "--rows"},
      {{"kernels", "--shape", "768"}, "--shape \"768\" is no size of a layer"},
      {{"kernels", "--shape", "70000x8"}, "--shape"},
      {{"kernels", "--shape", "8x8", "--rows", "0"}, "--rows"},
      {{"kernels", "--shape", "8x8", "--density", "2"}, "--density"},
      {{"kernels", "--rows", "8"}, "--rows and --density need --shape"},
      {{"passes", "quantise"}, "did you mean quantize?"},
  };
  const TempDir empty;
  for (const Case& one : cases) {
    std::string line;
    for (const std::string& argument : one.arguments) line += argument + " ";
    INFO(line);
    CheckFails(one.arguments, "E_USAGE", 2, one.text, empty.path());
  }
  CHECK(std::filesystem::is_empty(empty.path()));
}

TEST_CASE("help of the tool and of each verb goes to stdout") {
  const RunResult tool = RunTool({"--help"});
  CHECK(tool.exit_code == 0);
  CHECK(tool.err.empty());
  for (const char* verb :
       {"compress", "compile", "eval", "benchmark", "inspect", "passes", "kernels"}) {
    INFO(verb);
    CHECK(Contains(tool.out, verb));
    const RunResult run = RunTool({verb, "--help"});
    CHECK(run.exit_code == 0);
    CHECK(Contains(run.out, "--format"));
    CHECK(run.err.empty());
  }
}

TEST_CASE("version names the tool and its parts") {
  for (const std::vector<std::string>& arguments :
       {std::vector<std::string>{"--version"}, {"compress", "--version"}}) {
    const RunResult run = RunTool(arguments);
    CHECK(run.exit_code == 0);
    CHECK(run.out.starts_with("sparsefuse 0."));
    for (const char* part : {"ONNX Runtime 1.", "protobuf ", "cpu "})
      CHECK(Contains(run.out, part));
  }
  const RunResult json = RunTool({"--version", "--format", "json"});
  CHECK(Contains(json.out, "\"onnxruntime\": \"1."));
}

TEST_CASE("passes lists every pass, or one with its parameters") {
  const RunResult all = RunTool({"passes"});
  CHECK(all.exit_code == 0);
  for (const PassInfo* pass : AllPasses()) {
    INFO(pass->name);
    const RunResult one = RunTool({"passes", std::string(pass->name)});
    CHECK(one.exit_code == 0);
    CHECK(one.out.starts_with(pass->name));
    CHECK(Contains(all.out, one.out.substr(0, one.out.find('\n') + 1)));
  }
  const RunResult one = RunTool({"passes", "quantize"});
  CHECK(Contains(one.out, "bias_correction"));
  CHECK_FALSE(Contains(one.out, "fold-masks"));
  CHECK(RunTool({"passes", "--format", "json"}).out.starts_with("["));
  CHECK(RunTool({"passes", "--format", "markdown"}).out.starts_with("# "));
  CHECK(RunTool({"passes", "--format", "schema"}).out.starts_with("{"));
}

}  // namespace
}  // namespace sparsefuse::test

// Every kind of bad input: one line, the documented exit code, nothing written.

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "onnx_io/writer.h"
#include "tests/cli/fixtures.h"
#include "tests/support/catch.h"
#include "tests/support/npy_files.h"

namespace sparsefuse::test {
namespace {

namespace fs = std::filesystem;

// One protobuf field with a length.
std::string Field(int number, std::string_view bytes) {
  SF_CHECK(number < 16 && bytes.size() < 128);
  return std::string{static_cast<char>(number << 3 | 2), static_cast<char>(bytes.size())} +
         std::string(bytes);
}
std::string Number(int number, char value) { return {static_cast<char>(number << 3), value}; }

// ir_version 8, opset 18, y = Identity(w) with this TensorProto as initializer w.
std::string ModelWithTensor(const std::string& tensor) {
  const std::string node = Field(1, "w") + Field(2, "y") + Field(4, "Identity");
  // float [4]
  const std::string type = Field(1, Number(1, 1) + Field(2, Field(1, Number(1, 4))));
  const std::string output = Field(1, "y") + Field(2, type);
  return Number(1, 8) + Field(8, Number(2, 18)) +
         Field(7, Field(1, node) + Field(2, "g") + Field(5, tensor) + Field(12, output));
}

TEST_CASE("model files that are none") {
  struct Case {
    std::string name, bytes, code;
    int exit_code;
    std::string text;
  };
  const Workplace work;
  const std::string good = ReadFile(work / "model.onnx");
  const std::string tensor = Number(1, 4) + Number(2, 1) + Field(8, "w");  // dims [4], float, "w"
  const auto external = [](std::string key, std::string value) {
    return Field(13, Field(1, key) + Field(2, value));
  };
  const Case cases[] = {
      {"empty", "", "E_MODEL", 3, "empty"},
      {"text", "hello, this is no model\n", "E_MODEL", 3, ""},
      {"half", good.substr(0, good.size() / 2), "E_MODEL", 3, "truncated"},
      {"minus1", good.substr(0, good.size() - 1), "E_MODEL", 3, "truncated"},
      {"lfs", "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3327343\n",
       "E_MODEL", 3, "git lfs pull"},
      {"html", "<!DOCTYPE html>\n<html><body>404</body></html>\n", "E_MODEL", 3, "HTML"},
      {"gzip", std::string("\x1f\x8b\x08\0\0\0\0\0\0\x03", 10) + "xxxx", "E_MODEL", 3, "gzip"},
      {"raw3", ModelWithTensor(tensor + Field(9, std::string(15, '\0'))), "E_TENSOR", 3, "need 16"},
      {"path", ModelWithTensor(tensor + external("location", "../secret") + Number(14, 1)),
       "E_PATH", 3, "../secret"},
  };
  for (const Case& one : cases) {
    INFO(one.name);
    const std::string path = work / (one.name + ".onnx");
    WriteFile(path, one.bytes);
    const std::string before = Snapshot(work.path());
    const std::string line =
        CheckFails({"compress", "-m", path, "-o", work / "out"}, one.code, one.exit_code, one.text);
    CHECK(Contains(line, path));
    CheckFails({"inspect", path}, one.code, one.exit_code, one.text);
    CHECK(Snapshot(work.path()) == before);
  }
}

TEST_CASE("model paths that cannot be read") {
  const Workplace work;
  fs::create_directory(work / "folder.onnx");
  mkfifo((work / "fifo.onnx").c_str(), 0600);
  const std::string before = Snapshot(work.path());
  for (const char* name : {"missing.onnx", "folder.onnx", "fifo.onnx"}) {
    CheckFails({"compress", "-m", work / name, "-o", work / "out"}, "E_READ", 5, name);
  }
  CheckFails({"compress", "-m", "", "-o", work / "out"}, "E_USAGE", 2, "-m");
  CheckFails({"eval", "-m", work / "missing.onnx", "--eval-data", work / "evaluation.npz"},
             "E_READ", 5, "missing.onnx");
  CheckFails({"benchmark", "-m", work / "missing.onnx"}, "E_READ", 5, "missing.onnx");
  CHECK(Snapshot(work.path()) == before);
}

TEST_CASE("names with spaces, quotes and other characters are paths like any other") {
  const Workplace work;
  for (const std::string name : {"two words.onnx", "it's \"it\".onnx", "%s.onnx", "é.onnx"}) {
    fs::copy_file(work / "model.onnx", work / name);
    const RunResult run = RunTool({"inspect", work / name});
    INFO(name << run.err);
    CHECK(run.exit_code == 0);
  }
  // A name with control characters does not reach the terminal as it is.
  const std::string line =
      CheckFails({"inspect", work / "a\x1b[31m\n.onnx"}, "E_READ", 5, "\\x1b[31m\\n");
  CHECK_FALSE(Contains(line, "\x1b"));
}

TEST_CASE("data that does not fit the model") {
  const Workplace work;
  const Tensor x = Tensor::Of<float>({64, 64}, std::vector<float>(64 * 64, 0.5f));
  std::vector<float> with_nan(64 * 64, 0.5f);
  with_nan[100] = NAN;
  struct Case {
    std::string name, bytes, text;
  };
  const Case cases[] = {
      {"names", NpzBytes({{"xx", x}}), "\"x\""},
      {"shape", NpzBytes({{"x", Tensor::Of<float>({64, 63}, std::vector<float>(64 * 63))}}), "63"},
      {"type", NpzBytes({{"x", Tensor::Of<double>({64, 64}, std::vector<double>(64 * 64))}}),
       "double"},
      {"nan", NpzBytes({{"x", Tensor::Of<float>({64, 64}, with_nan)}}), "NaN"},
      {"none", NpzBytes({{"x", Tensor::Of<float>({0, 64}, std::vector<float>())}}), "no samples"},
      {"counts",
       NpzBytes({{"x", x}, {"label", Tensor::Of<int64_t>({63}, std::vector<int64_t>(63))}}), "63"},
      {"truncated", SmallData(96, false).substr(0, 9000), ""},
      {"pickle",
       ZipBytes({{.name = "x.npy",
                  .bytes = NpyBytes("{'descr': '|O', 'fortran_order': False, "
                                    "'shape': (1,), }",
                                    "xxxxxxxx")}}),
       ""},
      {"text", "no archive", ""},
  };
  for (const Case& one : cases) {
    INFO(one.name);
    const std::string path = work / (one.name + ".npz");
    WriteFile(path, one.bytes);
    const std::string before = Snapshot(work.path());
    CheckFails(work.Compress({"--calibration-data", path}), "E_DATA", 3, one.text);
    CheckFails(work.Compress({"--eval-data", path}), "E_DATA", 3, one.text);
    const std::string line =
        CheckFails({"eval", "-m", work / "model.onnx", "--eval-data", path}, "E_DATA", 3, one.text);
    CHECK(Contains(line, path));
    CHECK(Snapshot(work.path()) == before);
  }
  CheckFails(work.Compress({"--calibration-data", work / "missing.npz"}), "E_READ", 5,
             "missing.npz");
  CheckFails({"eval", "-m", work / "model.onnx", "--eval-data", work / "calibration.npz"}, "E_DATA",
             3, "no labels");
}

TEST_CASE("data that claims to be larger than memory is not believed") {
  const Workplace work;
  fs::create_directory(work / "huge");
  const std::string file = work / "huge/x.npy";
  // 2^28 samples of 64 floats: 64 GiB and a header, in a file of holes.
  WriteFile(file,
            NpyBytes("{'descr': '<f4', 'fortran_order': False, 'shape': (268435457, 64), }", ""));
  fs::resize_file(file, fs::file_size(file) + 268435457ull * 64 * 4);
  CheckFails(work.Compress({"--calibration-data", work / "huge"}), "E_LIMIT", 7, "x.npy");
}

TEST_CASE("configurations that are wrong") {
  struct Case {
    std::string text, error;
  };
  const Case cases[] = {
      {R"({"pases": []})", "did you mean \"passes\"?"},
      {R"({"passes": [{"type": "quantise"}]})", "did you mean \"quantize\"?"},
      {R"({"passes": [{"type": "quantize", "weights": "int7"}]})", "$.passes[0].weights"},
      {R"({"threads": -1})", "$.threads"},
      {R"({"threads": 1, "threads": 2})", "threads"},
      {"{", "line"},
      {"", ""},
  };
  const Workplace work;
  for (const Case& one : cases) {
    WriteFile(work / "bad.json", one.text);
    CheckFails({"compress", "-m", work / "model.onnx", "-o", work / "out", "-c", work / "bad.json"},
               "E_CONFIG", 2, one.error);
  }
  CheckFails({"compress", "-m", work / "model.onnx", "-o", work / "out", "--preset", "int9"},
             "E_CONFIG", 2, "did you mean \"int8\"?");
  CheckFails({"compress", "-m", work / "model.onnx", "-o", work / "out", "-c", work / "none.json"},
             "E_READ", 5, "none.json");
  CHECK_FALSE(fs::exists(work / "out"));
}

TEST_CASE("a model with an input that no array can feed is not supported with data") {
  const Workplace work;
  Model model = SmallClassifier();
  model.graph().AddGraphInput(
      "text",
      ValueType{.dtype = DType::kString, .has_shape = true, .dims = {std::string("batch")}});
  WriteModel(model, work / "text.onnx");
  WriteFile(work / "text.npz",
            NpzBytes({{"x", Tensor::Of<float>({64, 64}, std::vector<float>(64 * 64))},
                      {"text", Tensor::Of<int64_t>({64}, std::vector<int64_t>(64))}}));
  CheckFails({"eval", "-m", work / "text.onnx", "--eval-data", work / "text.npz"}, "E_UNSUPPORTED",
             4, "\"text\"");
}

TEST_CASE("a model that the engine refuses is an error of the engine") {
  const Workplace work;
  Model model = SmallClassifier();
  model.graph().Nodes()[1]->set_op("NoSuchOperator");
  WriteModel(model, work / "odd.onnx");
  CheckFails({"benchmark", "-m", work / "odd.onnx"}, "E_ENGINE", 10, "NoSuchOperator");
  CheckFails({"eval", "-m", work / "odd.onnx", "--eval-data", work / "evaluation.npz"}, "E_ENGINE",
             10, "odd.onnx");
}

TEST_CASE("with --format json the error is an object on stderr") {
  const Workplace work;
  const RunResult run = RunTool({"inspect", work / "none.onnx", "--format", "json"});
  CHECK(run.exit_code == 5);
  CHECK(run.out.empty());
  CHECK(Contains(run.err, "{\"error\":{\"code\":\"E_READ\",\"exit\":5,\"file\":\"" +
                              (work / "none.onnx") + "\""));
  CHECK(RunTool({"inspect", "--format=json"}).err.starts_with("{\"error\":{\"code\":\"E_USAGE\""));
}

}  // namespace
}  // namespace sparsefuse::test

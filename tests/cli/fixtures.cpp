#include "tests/cli/fixtures.h"

#include <algorithm>

#include "onnx_io/writer.h"
#include "passes/data/random.h"
#include "tests/support/catch.h"
#include "tests/support/npy_files.h"

namespace sparsefuse::test {

namespace fs = std::filesystem;

namespace {

constexpr int64_t kIn = 64, kHidden = 96, kClasses = 32;

// Uniform in [−1, 1).
std::vector<float> Random(uint64_t seed, int64_t count) {
  std::vector<float> values(static_cast<size_t>(count));
  for (size_t i = 0; i < values.size(); ++i) {
    values[i] = static_cast<float>(RandomAt(seed, i) >> 40) * 0x1p-23f - 1;
  }
  return values;
}

std::vector<float> Weights(uint64_t seed, int which) {
  return which == 0 ? Random(seed, kIn * kHidden) : Random(seed + 1000, kHidden * kClasses);
}

// The classifier in plain loops.
int64_t ClassOf(const float* x) {
  const std::vector<float> first = Weights(1, 0), second = Weights(1, 1);
  std::vector<double> hidden(kHidden), y(kClasses);
  for (int64_t h = 0; h < kHidden; ++h) {
    for (int64_t k = 0; k < kIn; ++k) hidden[size_t(h)] += x[k] * first[size_t(k * kHidden + h)];
    hidden[size_t(h)] = std::max(0.0, hidden[size_t(h)]);
  }
  for (int64_t c = 0; c < kClasses; ++c) {
    for (int64_t h = 0; h < kHidden; ++h) {
      y[size_t(c)] += hidden[size_t(h)] * second[size_t(h * kClasses + c)];
    }
  }
  return std::max_element(y.begin(), y.end()) - y.begin();
}

}  // namespace

Model SmallClassifier(uint64_t seed) {
  Model model;
  model.opset_imports[""] = 18;
  Graph& graph = model.graph();
  const auto matrix = [](std::variant<int64_t, std::string> rows, int64_t columns) {
    return ValueType{.dtype = DType::kFloat, .has_shape = true, .dims = {rows, columns}};
  };
  Value* x = graph.AddGraphInput("x", matrix(std::string("batch"), kIn));
  Value* first = graph.AddInitializer("first", Tensor::Of<float>({kIn, kHidden}, Weights(seed, 0)));
  Value* second =
      graph.AddInitializer("second", Tensor::Of<float>({kHidden, kClasses}, Weights(seed, 1)));
  Node* a = graph.AddNode({.op = "MatMul",
                           .domain = "",
                           .name = "fc1",
                           .inputs = {x, first},
                           .outputs = {"a"},
                           .attributes = {}});
  Node* b = graph.AddNode({.op = "Relu",
                           .domain = "",
                           .name = "relu",
                           .inputs = {a->output(0)},
                           .outputs = {"b"},
                           .attributes = {}});
  Node* c = graph.AddNode({.op = "MatMul",
                           .domain = "",
                           .name = "fc2",
                           .inputs = {b->output(0), second},
                           .outputs = {"y"},
                           .attributes = {}});
  c->output(0)->set_type(matrix(std::string("batch"), kClasses));
  graph.AddGraphOutput(c->output(0));
  return model;
}

std::string SmallData(int64_t samples, bool labels) {
  const std::vector<float> x = Random(7, samples * kIn);
  std::vector<std::pair<std::string, Tensor>> arrays = {
      {"x", Tensor::Of<float>({samples, kIn}, x)}};
  if (labels) {
    std::vector<int64_t> label;
    for (int64_t i = 0; i < samples; ++i) {
      label.push_back(i % 10 == 9 ? 0 : ClassOf(x.data() + i * kIn));
    }
    arrays.emplace_back("label", Tensor::Of<int64_t>({samples}, label));
  }
  return NpzBytes(arrays);
}

Workplace::Workplace() {
  WriteModel(SmallClassifier(), path() / "model.onnx");
  WriteFile(path() / "calibration.npz", SmallData(96, false));
  WriteFile(path() / "evaluation.npz", SmallData(128, true));
  WriteFile(path() / "fast.json", R"({"measure": false, "passes": [{"type": "quantize"}]})");
}

std::vector<std::string> Workplace::Compress(const std::vector<std::string>& more) const {
  std::vector<std::string> arguments = {"compress",    "-m", *this / "model.onnx", "-o",
                                        *this / "out", "-c", *this / "fast.json"};
  arguments.insert(arguments.end(), more.begin(), more.end());
  return arguments;
}

std::string Snapshot(const fs::path& folder) {
  std::vector<fs::path> paths;
  for (const auto& entry : fs::recursive_directory_iterator(folder)) paths.push_back(entry.path());
  std::sort(paths.begin(), paths.end());
  std::string all;
  for (const fs::path& path : paths) {
    all += path.string() + "\n";
    if (fs::is_regular_file(path)) all += ReadFile(path);
  }
  return all;
}

std::string CheckFails(const std::vector<std::string>& arguments, std::string_view code,
                       int exit_code, std::string_view text, const fs::path& working_directory) {
  const RunResult run = RunTool(arguments, working_directory);
  INFO("stdout: " << run.out << "stderr: " << run.err);
  CHECK(run.exit_code == exit_code);
  CHECK(run.out.empty());
  CHECK(run.err.starts_with("sparsefuse: error[" + std::string(code) + "]: "));
  CHECK(std::count(run.err.begin(), run.err.end(), '\n') == 1);
  CHECK(Contains(run.err, text));
  return run.err;
}

bool Contains(std::string_view text, std::string_view part) {
  return text.find(part) != std::string_view::npos;
}

}  // namespace sparsefuse::test

#include "passes/engine/evaluate.h"

#include <cmath>
#include <filesystem>
#include <numeric>
#include <set>
#include <string>

#include "onnx_io/reader.h"
#include "onnx_io/text.h"
#include "tests/support/catch.h"
#include "tests/support/dataset.h"
#include "tests/support/support.h"

namespace sparsefuse {
namespace {

using test::Counting;
using test::MakeDataset;

std::vector<int64_t> All(const Dataset& data) {
  std::vector<int64_t> samples(static_cast<size_t>(data.size()));
  std::iota(samples.begin(), samples.end(), 0);
  return samples;
}

TEST_CASE("batches cover the samples once, in order") {
  const Model model = ModelFromText(R"(<ir_version: 8, opset_import: ["" : 17]>
g (float[N,2] x) => (float[N,2] y) { y = Neg(x) })");
  const Session session(model, {});
  const Dataset data = MakeDataset(model, {{"x", Counting({7, 2})}});
  const std::vector<int64_t> samples = {6, 0, 1, 5, 3};
  std::vector<float> seen;
  std::vector<size_t> sizes;
  ForEachBatch(session, data, samples, 2, {},
               [&](std::span<const Tensor> outputs, std::span<const int64_t> own) {
                 sizes.push_back(own.size());
                 CHECK(outputs[0].dims() == Dims{static_cast<int64_t>(own.size()), 2});
                 const std::vector<float> values = outputs[0].ToFloats();
                 seen.insert(seen.end(), values.begin(), values.end());
               });
  CHECK(sizes == std::vector<size_t>{2, 2, 1});
  CHECK(seen == std::vector<float>{-12, -13, 0, -1, -2, -3, -10, -11, -6, -7});
}

TEST_CASE("a fixed batch is filled up and cut off again") {
  const Model model = ModelFromText(R"(<ir_version: 8, opset_import: ["" : 17]>
g (float[4,1] x) => (float[4,1] y, float sum)
{ y = Neg(x) sum = ReduceSum<keepdims = 0>(x) })");
  const Session session(model, {});
  const Dataset data = MakeDataset(model, {{"x", Counting({8, 1})}});
  const std::vector<int64_t> samples = {7, 2, 3, 4, 5, 6};
  std::vector<float> seen, sums;
  ForEachBatch(session, data, samples, 100, {},
               [&](std::span<const Tensor> outputs, std::span<const int64_t> own) {
                 CHECK(outputs[0].dims()[0] == static_cast<int64_t>(own.size()));
                 const std::vector<float> values = outputs[0].ToFloats();
                 seen.insert(seen.end(), values.begin(), values.end());
                 sums.push_back(outputs[1].ToFloats()[0]);
               });
  CHECK(seen == std::vector<float>{-7, -2, -3, -4, -5, -6});
  CHECK(sums == std::vector<float>{16, 5 + 6 + 6 + 6});
}

TEST_CASE("a failing batch names its samples") {
  // Gather fails on the index that is out of range.
  const Model model = ModelFromText(R"(<ir_version: 8, opset_import: ["" : 17]>
g (int64[N,1] x) => (float[N,1] y) <float[3] table = {1, 2, 3}> { y = Gather(table, x) })");
  const Session session(model, {});
  const Dataset data = MakeDataset(model, {{"x", Tensor::Of<int64_t>({6, 1}, {0, 1, 2, 0, 9, 1})}});
  const auto ignore = [](std::span<const Tensor>, std::span<const int64_t>) {};
  for (const int64_t batch : {1, 2}) {
    try {
      ForEachBatch(session, data, All(data), batch, {}, ignore);
      FAIL("accepted");
    } catch (const UserError& error) {
      CHECK(error.code == ErrorCode::kEngine);
      CHECK(error.where == (batch == 1 ? "sample 4" : "samples 4 to 5 (2 of them)"));
    }
  }
}

// Two classes, decided by x's sign; the candidate moves the border.
Model Classifier(double border) {
  return ModelFromText(fmt::format(R"(<ir_version: 8, opset_import: ["" : 17]>
g (float[N,1] x) => (int64[N] index, float[N,1] hidden, float[N,2] y)
<float border = {{{:.2f}}}>
{{ hidden = Sub(x, border)
   none = Neg(hidden)
   y = Concat<axis = 1>(none, hidden)
   index = ArgMax<axis = 1, keepdims = 0>(y) }})",
                                   border));
}

TEST_CASE("the metric comes from the output that fits the labels") {
  const Model model = Classifier(2.5), other = Classifier(4.5);
  const Session reference(model, {}), candidate(other, {});
  // x = 0 … 7; right answers of the reference: all but sample 7.
  const Dataset data = MakeDataset(
      model,
      {{"x", Counting({8, 1})}, {"label", Tensor::Of<int64_t>({8}, {0, 0, 0, 1, 1, 1, 1, 0})}});
  std::vector<int64_t> progress;
  const EvaluateOptions options{.batch = 3, .progress = [&](int64_t done, int64_t total) {
                                  CHECK(total == 8);
                                  progress.push_back(done);
                                }};
  const TaskScore score = EvaluateModel(reference, data, All(data), options);
  CHECK(score.metric == TaskMetric::kAccuracy);
  CHECK(score.Value() == 7 / 8.0);
  CHECK(progress == std::vector<int64_t>{3, 6, 8});

  const Comparison comparison = CompareModels(reference, candidate, data, All(data));
  CHECK(comparison.reference_score.Value() == 7 / 8.0);
  CHECK(comparison.candidate_score.Value() == 5 / 8.0);
  REQUIRE(comparison.outputs.size() == 3);
  CHECK(comparison.outputs[comparison.main_output].name == "y");
  CHECK(comparison.main().flips == 2);
  CHECK(comparison.main().answers == 8);
  CHECK(comparison.outputs[0].distances.flips == 2);          // index, integers
  CHECK(comparison.outputs[1].distances.error_energy == 32);  // hidden, 8 · 2²
}

TEST_CASE("without labels only distances are taken") {
  const Model model = Classifier(2.5);
  const Session session(model, {});
  const Dataset data = MakeDataset(model, {{"x", Counting({8, 1})}});
  CHECK(EvaluateModel(session, data, All(data)).metric == TaskMetric::kNone);
  const Comparison comparison = CompareModels(session, session, data, All(data));
  CHECK(comparison.reference_score.metric == TaskMetric::kNone);
  CHECK(comparison.outputs[comparison.main_output].name == "hidden");  // the first floating one
  CHECK(comparison.main().Cosine() == Approx(1));
}

TEST_CASE("a result without an output of the original is not verified") {
  const Model model = Classifier(2.5);
  const Model less = ModelFromText(R"(<ir_version: 8, opset_import: ["" : 17]>
g (float[N,1] x) => (float[N,1] hidden) { hidden = Neg(x) })");
  const Session reference(model, {}), candidate(less, {});
  const Dataset data = MakeDataset(model, {{"x", Counting({2, 1})}});
  try {
    CompareModels(reference, candidate, data, All(data));
    FAIL("accepted");
  } catch (const UserError& error) {
    CHECK(error.code == ErrorCode::kVerify);
    CHECK(error.message == "the result has no output \"index\"");
  }
}

TEST_CASE("outputs that are not by sample count as one sample") {
  const Model model = ModelFromText(R"(<ir_version: 8, opset_import: ["" : 17]>
g (float[N,2] x) => (float sum, float[K] flat)
<int64[1] shape = {-1}>
{ sum = ReduceSum<keepdims = 0>(x) flat = Reshape(x, shape) })");
  const Session session(model, {});
  const Dataset data = MakeDataset(model, {{"x", Counting({6, 2})}});
  const Comparison comparison = CompareModels(session, session, data, All(data), {.batch = 4});
  CHECK(comparison.outputs[0].distances.samples == 2);
  CHECK(comparison.outputs[1].distances.samples == 2);
}

// The metric of a trained model as its README states it.
void CheckAsset(const char* name, TaskMetric metric, double value, OutputKind kind) {
  const auto assets = test::Assets();
  if (!assets) return;
  const auto folder = *assets / name;
  const Model model = ReadModel(folder / "model.onnx");
  const Session session(model, {});
  const Dataset data = Dataset::Load(folder / "evaluation.npz", model);
  const TaskScore score = EvaluateModel(session, data, All(data));
  CHECK(score.metric == metric);
  // As many digits as the README gives.
  CHECK(score.Value() == Approx(value).margin(metric == TaskMetric::kAccuracy ? 0.00005 : 0.0005));
  ForEachBatch(session, data, std::vector<int64_t>{0, 1, 2}, 3, {},
               [&](std::span<const Tensor> outputs, std::span<const int64_t>) {
                 CHECK(DetectOutputKind(outputs[0]) == kind);
               });
  CHECK(Dataset::Load(folder / "calibration.npz", model).warnings.empty());
}

TEST_CASE("published metric of resnet8-cifar10", "[assets]") {
  CheckAsset("resnet8-cifar10", TaskMetric::kAccuracy, 0.7405, OutputKind::kProbabilities);
}
TEST_CASE("published metric of mnist-cnn", "[assets]") {
  CheckAsset("mnist-cnn", TaskMetric::kAccuracy, 0.9918, OutputKind::kLogits);
}
TEST_CASE("published metric of kws-dscnn", "[assets]") {
  CheckAsset("kws-dscnn", TaskMetric::kAccuracy, 0.9113, OutputKind::kProbabilities);
}
TEST_CASE("published metric of encoder-sst2", "[assets]") {
  CheckAsset("encoder-sst2", TaskMetric::kAccuracy, 0.8000, OutputKind::kLogits);
}
TEST_CASE("published metric of vit-cifar10", "[assets]") {
  CheckAsset("vit-cifar10", TaskMetric::kAccuracy, 0.7500, OutputKind::kLogits);
}
TEST_CASE("published metric of stories260k", "[assets]") {
  CheckAsset("stories260k", TaskMetric::kPerplexity, 4.507, OutputKind::kLogits);
}
TEST_CASE("published metric of shakespeare-gpt-small", "[assets]") {
  CheckAsset("shakespeare-gpt-small", TaskMetric::kPerplexity, 4.267, OutputKind::kLogits);
}
TEST_CASE("published metric of gpt2-style-shakespeare", "[assets]") {
  CheckAsset("gpt2-style-shakespeare", TaskMetric::kPerplexity, 4.105, OutputKind::kLogits);
}

// Files that ONNX Runtime itself refuses: an operator without schema, bfloat16 without a kernel,
// contradictory shapes.
TEST_CASE("every file of the zoo loads, or ONNX Runtime says why", "[assets]") {
  const auto assets = test::Assets();
  if (!assets) return;
  const std::set<std::string> refused = {"custom_ops_type_inference_fails_0.onnx",
                                         "dup_qdq_bfloat16.onnx", "starry_night_fp16_ir1.onnx"};
  for (const auto& entry : std::filesystem::recursive_directory_iterator(*assets / "zoo")) {
    const std::string name = entry.path().filename().string();
    // The reader refuses this one: its external data is a memory address.
    if (entry.path().extension() != ".onnx" || name == "test_evil_weights.onnx") continue;
    INFO(name);
    const Model model = ReadModel(entry.path());
    bool loaded = true;
    try {
      const Session session(model, {});
      CHECK(!InferTypes(model, {}).empty());
    } catch (const UserError& error) {
      CHECK(error.code == ErrorCode::kEngine);
      loaded = false;
    }
    CHECK(loaded == !refused.contains(name));
  }
}

}  // namespace
}  // namespace sparsefuse

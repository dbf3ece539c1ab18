// Every convolution of the trained CNNs computed in int8, judged on the whole evaluation set. Which
// of them the tool keeps depends on the machine, and is not asked here.

#include "passes/quantize/convolution.h"

#include <cmath>
#include <filesystem>
#include <map>
#include <numeric>
#include <string>
#include <vector>

#include "onnx_io/reader.h"
#include "onnx_io/writer.h"
#include "passes/engine/evaluate.h"
#include "passes/framework/pass.h"
#include "passes/quantize/convolution_plan.h"
#include "tests/support/catch.h"
#include "tests/support/support.h"

namespace sparsefuse {
namespace {

namespace fs = std::filesystem;

struct Cnn {
  fs::path directory;
  Model teacher, student;  // the student cleaned up, as the presets do
  Dataset calibration;
  Context context;

  explicit Cnn(const fs::path& path)
      : directory(path),
        teacher(ReadModel(path / "model.onnx")),
        student(teacher.Clone()),
        calibration(Dataset::Load(path / "calibration.npz", teacher)) {
    context.teacher = &teacher;
    context.calibration = &calibration;
    context.splits = MakeSplits(calibration.size(), 0);
    context.threads = 2;
    context.measure = false;
    for (const char* name : {"raise-opset", "remove-dead", "fold-constants", "fold-batchnorm"}) {
      const PassInfo* info = FindPass(name);
      REQUIRE(info);
      info->make(Params::Defaults(info->params))->Run(student, context);
    }
  }

  Comparison Compare() const {
    const Dataset evaluation = Dataset::Load(directory / "evaluation.npz", teacher);
    std::vector<int64_t> samples(static_cast<size_t>(evaluation.size()));
    std::iota(samples.begin(), samples.end(), int64_t{0});
    return CompareModels(Session(teacher, {.threads = 2}), Session(student, {.threads = 2}),
                         evaluation, samples);
  }
};

int CountOf(const Model& model, std::string_view op) {
  int count = 0;
  for (const Node* node : model.graph().Nodes()) count += node->Is(op);
  return count;
}

TEST_CASE("int8 convolutions keep the metric of every trained CNN") {
  const auto assets = test::Assets();
  if (!assets) return;
  for (const char* name : {"resnet8-cifar10", "kws-dscnn", "mnist-cnn"}) {
    CAPTURE(name);
    Cnn cnn(*assets / name);
    const int convolutions = CountOf(cnn.student, "Conv");
    PassStats stats;
    QuantizeConvolutions(cnn.student, cnn.context, {}, stats);
    Verify(cnn.student);
    CHECK(stats.changed);
    for (const Finding& finding : stats.findings) {
      CAPTURE(finding.subject, finding.reason);
      CHECK_FALSE(finding.action.empty());
      CHECK((finding.error > 0 && finding.error < 0.02));
    }
    CHECK(cnn.context.decisions["quantize"]["convolution"]["variant"] == "all");
    CHECK(CountOf(cnn.student, "Conv") == convolutions);
    CHECK(CountOf(cnn.student, "Relu") == 0);
    CHECK(CountOf(cnn.student, "Clip") == 0);
    const Comparison comparison = cnn.Compare();
    CHECK(std::fabs(comparison.candidate_score.Value() - comparison.reference_score.Value()) <=
          0.005);
    CHECK(comparison.main().Agreement() >= 0.96);
    CHECK(comparison.main().Cosine() >= 0.995);
    CHECK(static_cast<double>(SerializeModel(cnn.student).size()) <=
          0.33 * static_cast<double>(fs::file_size(cnn.directory / "model.onnx")));
  }
}

TEST_CASE("filters in 4 bits take half the bytes and compute in int8") {
  const auto assets = test::Assets();
  if (!assets) return;
  Cnn cnn(*assets / "kws-dscnn");
  PassStats stats;
  QuantizeConvolutions(cnn.student, cnn.context,
                       {.packed = true, .int8 = EndProducts(cnn.student.graph(), cnn.context)},
                       stats);
  Verify(cnn.student);
  const Comparison comparison = cnn.Compare();
  CHECK(comparison.candidate_score.Value() >= comparison.reference_score.Value() - 0.02);
  CHECK(comparison.main().Cosine() >= 0.98);
  Cnn other(*assets / "kws-dscnn");
  QuantizeConvolutions(other.student, other.context, {}, stats);
  CHECK(cnn.student.WeightBytes() < 0.75 * static_cast<double>(other.student.WeightBytes()));
}

TEST_CASE("a recorded choice gives the same bytes again, for any number of threads") {
  const auto assets = test::Assets();
  if (!assets) return;
  std::string first;
  for (int threads : {1, 2}) {
    Cnn cnn(*assets / "resnet8-cifar10");
    cnn.context.threads = threads;
    cnn.context.measure = true;  // but decided already
    cnn.context.decisions["quantize"]["convolution"] = {{"variant", "padded"}, {"speedup", 1.4}};
    PassStats stats;
    QuantizeConvolutions(cnn.student, cnn.context, {}, stats);
    CHECK(CountOf(cnn.student, "Pad") == 1);
    const std::string bytes = SerializeModel(cnn.student);
    if (first.empty()) first = bytes;
    CHECK(bytes == first);
  }
}

TEST_CASE("a choice recorded as none leaves the model alone and says why") {
  const auto assets = test::Assets();
  if (!assets) return;
  Cnn cnn(*assets / "mnist-cnn");
  const std::string before = SerializeModel(cnn.student);
  cnn.context.decisions["quantize"]["convolution"] = {{"variant", "none"}, {"speedup", 0.94}};
  PassStats stats;
  QuantizeConvolutions(cnn.student, cnn.context, {}, stats);
  CHECK_FALSE(stats.changed);
  CHECK(SerializeModel(cnn.student) == before);
  REQUIRE(stats.findings.size() == 2);
  CHECK(stats.findings[0].reason == "int8 was measured at ×0.94 of float's speed");

  cnn.context.decisions["quantize"]["convolution"]["variant"] = "some";
  CHECK_THROWS_AS(QuantizeConvolutions(cnn.student, cnn.context, {}, stats), UserError);
}

}  // namespace
}  // namespace sparsefuse

// The cleanup passes on real models: every pass verifies against the original's answers, a second
// run finds nothing to do, and the files do not grow.

#include <cmath>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "onnx_io/reader.h"
#include "onnx_io/text.h"
#include "passes/framework/pass.h"
#include "passes/framework/runner.h"
#include "tests/support/catch.h"
#include "tests/support/support.h"

namespace sparsefuse {
namespace {

namespace fs = std::filesystem;

std::unique_ptr<Pass> MakePass(std::string_view name) {
  const PassInfo* info = FindPass(name);
  REQUIRE(info);
  return info->make(Params::Defaults(info->params));
}

// Runs `name` and checks what holds for every cleanup pass; returns what it reports.
PassStats RunPass(std::string_view name, Model& model, Context& context,
                  const Reference& reference) {
  INFO("pass " << name);
  const ModelSnapshot before(model);
  const uint64_t bytes_before = model.WeightBytes();
  const PassStats stats = MakePass(name)->Run(model, context);
  REQUIRE_NOTHROW(Verify(model));
  CHECK((ModelSnapshot(model) == before) == !stats.changed);
  CHECK(model.WeightBytes() <= bytes_before + 4096);
  VerifyAgainst(
      reference, [&] { return Session(model, {}); }, Exactness::kLossless);

  const ModelSnapshot once(model);
  MakePass(name)->Run(model, context);
  CHECK(ModelSnapshot(model) == once);
  return stats;
}

int64_t Count(const Model& model, std::string_view op) {
  int64_t count = 0;
  ForEachGraph(model, [&](const Graph& graph) {
    for (const Node* node : graph.Nodes()) count += node->Is(op);
  });
  return count;
}

// remove-dead first, so that no Identity hides a constant or a convolution, and last for what the
// others leave.
const std::vector<std::string> kPasses = {"raise-opset",    "remove-dead", "fold-constants",
                                          "fold-batchnorm", "fold-masks",  "remove-dead"};

// Each pass on the model as it is, then all of them in a row, which is returned.
Model RunAll(const Model& original, Context& context, const Reference& reference) {
  context.teacher = &original;
  for (const char* name : {"remove-dead", "fold-constants", "fold-batchnorm", "fold-masks"}) {
    Model model = original.Clone();
    RunPass(name, model, context, reference);
  }
  Model model = original.Clone();
  for (const std::string& name : kPasses) RunPass(name, model, context, reference);
  return model;
}

// The trained model in `folder`, compared on its calibration data.
std::optional<Model> RunOnAsset(const std::string& folder, const std::string& file = "model.onnx") {
  const std::optional<fs::path> assets = test::Assets();
  if (!assets) return std::nullopt;
  const Model original = ReadModel(*assets / folder / file);
  const Dataset data = Dataset::Load(*assets / folder / "calibration.npz", original);
  Context context;
  context.calibration = &data;
  context.splits = MakeSplits(data.size(), 0);
  return RunAll(original, context, MakeReference(original, context));
}

TEST_CASE("resnet8 loses its normalisations") {
  const std::optional<Model> model = RunOnAsset("resnet8-cifar10");
  if (!model) return;
  CHECK(Count(*model, "BatchNormalization") == 0);
  CHECK(model->opset() == 18);
}

TEST_CASE("kws-dscnn loses its normalisations") {
  const std::optional<Model> model = RunOnAsset("kws-dscnn");
  if (!model) return;
  CHECK(Count(*model, "BatchNormalization") == 0);
}

TEST_CASE("mnist-cnn is raised from opset 9") {
  const std::optional<Model> model = RunOnAsset("mnist-cnn");
  if (!model) return;
  CHECK(model->opset() == 18);
  CHECK(Count(*model, "LogSoftmax") == 1);
  CHECK(Count(*model, "Flatten") == 0);  // the axis is known to be the last
}

TEST_CASE("vit-cifar10 of both exporters stays the same") {
  const std::optional<Model> dynamo = RunOnAsset("vit-cifar10");
  if (!dynamo) return;
  CHECK(dynamo->opset() == 20);
  const std::optional<Model> torchscript = RunOnAsset("vit-cifar10", "model_torchscript.onnx");
  CHECK(torchscript->opset() == 18);
}

TEST_CASE("encoder-sst2 stays the same") { RunOnAsset("encoder-sst2"); }

TEST_CASE("gpt2-style-shakespeare stays the same") { RunOnAsset("gpt2-style-shakespeare"); }

TEST_CASE("shakespeare-gpt-small loses its Dropouts") {
  const std::optional<Model> model = RunOnAsset("shakespeare-gpt-small");
  if (!model) return;
  CHECK(Count(*model, "Dropout") == 0);
}

TEST_CASE("stories260k loses its stored mask and keeps its embedding tied") {
  const std::optional<Model> model = RunOnAsset("stories260k");
  if (!model) return;
  const std::optional<fs::path> assets = test::Assets();
  const Model original = ReadModel(*assets / "stories260k" / "model.onnx");
  CHECK(original.WeightBytes() - model->WeightBytes() > 512 * 512 * 4 - 4096);
  const Value* embedding = model->graph().FindValue("tok_embeddings.weight");
  REQUIRE(embedding);
  CHECK(embedding->uses().size() == 2);
}

TEST_CASE("a result of 4 TiB is not computed") {
  Model model = ModelFromText(R"(
<ir_version: 8, opset_import: ["" : 18]>
agraph (float[1] x) => (float[a,b] y) <float[1] one = {1}, int64[2] shape = {1048576, 1048576}> {
  huge = Expand(one, shape)
  y = Add(x, huge)
})");
  Context context;
  const PassStats stats = MakePass("fold-constants")->Run(model, context);
  CHECK_FALSE(stats.changed);
  REQUIRE(stats.findings.size() == 1);
  CHECK(stats.findings[0].reason == "its result is over 268435456 bytes");
}

// --- Models without data
// --------------------------------------------------------------------------

// Dark strokes on white: PP-OCR finds text here, where noise gives nothing but rounding errors.
Tensor TextLikeImage() {
  constexpr int64_t kSize = 96;
  std::vector<float> image(3 * kSize * kSize, 2.0f);
  for (int64_t c = 0; c < 3; ++c) {
    for (int64_t y = kSize / 2 - 8; y < kSize / 2 + 8; ++y) {
      for (int64_t x = 8; x < kSize - 8; ++x) {
        const bool stem = (x - 8) % 14 < 3, bar = (y + 8) % 12 < 4 && (x - 8) % 14 < 10;
        if (stem || bar) image[static_cast<size_t>((c * kSize + y) * kSize + x)] = -2.0f;
      }
    }
  }
  return Tensor::Of<float>({1, 3, kSize, kSize}, image);
}

Tensor Tone(int64_t samples) {
  std::vector<float> tone(static_cast<size_t>(samples));
  for (size_t i = 0; i < tone.size(); ++i) tone[i] = 0.1f * static_cast<float>(std::sin(0.2 * i));
  return Tensor::Of<float>({1, samples}, tone);
}

// Inputs for the models that the probes of the framework do not fit.
Feeds SpecialFeeds(const std::string& file) {
  if (file == "ch_PP-OCRv3_det_infer.onnx") return {{"x", TextLikeImage()}};
  if (file == "silero_vad_16k_op15.onnx") {
    return {{"input", Tone(576)},
            {"state", Tensor::Of<float>({2, 1, 128}, std::vector<float>(256, 0))},
            {"sr", Tensor::Scalar<int64_t>(16000)}};
  }
  if (file == "tiny_gpt2_greedysearch_with_init_decoder.onnx") {
    return {{"input_ids", Tensor::Of<int32_t>({1, 3}, std::vector<int32_t>{1, 2, 3})},
            {"max_length", Tensor::Of<int32_t>({1}, std::vector<int32_t>{10})},
            {"min_length", Tensor::Of<int32_t>({1}, std::vector<int32_t>{1})},
            {"repetition_penalty", Tensor::Of<float>({1}, std::vector<float>{1})}};
  }
  return {};
}

Reference ReferenceOn(const Model& original, Feeds feeds) {
  const Session session(original, {});
  Reference reference;
  reference.basis = Basis::kData;
  reference.outputs = session.outputs();
  reference.answers.push_back(session.Run(feeds));
  reference.feeds.push_back(std::move(feeds));
  return reference;
}

void CheckZooModel(const fs::path& path) {
  std::optional<Model> original;
  try {
    original = ReadModel(path);
  } catch (const UserError& error) {
    CHECK(error.code == ErrorCode::kPath);  // external data that claims to lie in memory
    return;
  }
  Context context;
  context.teacher = &*original;
  Feeds feeds = SpecialFeeds(path.filename());
  RunAll(
      *original, context,
      feeds.empty() ? MakeReference(*original, context) : ReferenceOn(*original, std::move(feeds)));
}

TEST_CASE("every model of the zoo stays the same or is left alone") {
  const std::optional<fs::path> assets = test::Assets();
  if (!assets) return;
  for (const auto& entry : fs::recursive_directory_iterator(*assets / "zoo")) {
    if (entry.path().extension() != ".onnx") continue;
    DYNAMIC_SECTION(entry.path().filename().string()) { CheckZooModel(entry.path()); }
  }
}

// Three samples: four tokens behind a past of three, of which some are masked.
Feeds GptFeeds(const Model& model) {
  Feeds feeds;
  for (const Value* input : model.graph().inputs()) {
    const std::string& name = input->name();
    if (name.starts_with("past")) {
      std::vector<float> values(2 * 3 * 4 * 3 * 8);
      for (size_t i = 0; i < values.size(); ++i) {
        values[i] = static_cast<float>(std::sin(static_cast<double>(i)));
      }
      feeds.emplace_back(name, Tensor::Of<float>({2, 3, 4, 3, 8}, values));
      continue;
    }
    const int64_t length = name == "attention_mask" ? 7 : 4;
    std::vector<int32_t> values;
    for (int32_t i = 0; i < 3 * length; ++i) {
      values.push_back(name == "attention_mask" ? i % 7 > i / 7 : i * i % 500);
    }
    feeds.emplace_back(name, Tensor::Of<int32_t>({3, length}, values));
  }
  return feeds;
}

TEST_CASE("fused models of the zoo are taken apart whole") {
  const std::optional<fs::path> assets = test::Assets();
  if (!assets) return;
  for (const char* name :
       {"tiny_random_gpt2_fused.onnx", "odd/gpt2_embedlayer_one_attn_exp.onnx"}) {
    INFO(name);
    const Model original = ReadModel(*assets / "zoo" / name);
    Context context;
    context.teacher = &original;
    const bool gpt = original.graph().inputs().size() > 1;
    const Reference reference =
        gpt ? ReferenceOn(original, GptFeeds(original)) : MakeReference(original, context);
    Model model = original.Clone();
    RunPass("raise-opset", model, context, reference);
    const PassStats stats = RunPass("decompose", model, context, reference);
    CHECK(stats.changed);
    for (const Node* node : model.graph().Nodes()) CHECK(node->domain().empty());
  }
}

}  // namespace
}  // namespace sparsefuse

// Whole trained models: all weights have a gradient, and those of some weights and intermediate
// tensors all along the network are right.

#include <algorithm>
#include <filesystem>
#include <string>
#include <unordered_set>
#include <vector>

#include "onnx_io/reader.h"
#include "passes/data/dataset.h"
#include "passes/engine/engine.h"
#include "passes/framework/pass.h"
#include "tests/support/catch.h"
#include "tests/support/support.h"
#include "tests/unit/autodiff/finite_differences.h"

namespace sparsefuse {
namespace {

namespace fs = std::filesystem;
using Names = std::vector<std::string>;

// As the pipeline has it when gradients are asked for.
Model Prepared(const fs::path& path) {
  Model model = ReadModel(path);
  Context context;
  for (const char* name : {"raise-opset", "remove-dead"}) {
    const PassInfo* info = FindPass(name);
    REQUIRE(info);
    info->make(Params::Defaults(info->params))->Run(model, context);
  }
  return model;
}

// `count` of `names`, evenly spread, the first and the last among them.
Names Spread(const Names& names, size_t count) {
  if (names.size() <= count) return names;
  Names some;
  for (size_t i = 0; i < count; ++i) some.push_back(names[i * (names.size() - 1) / (count - 1)]);
  return some;
}

// Floating-point weights, and tensors computed from them, in graph order. (Others are masks, with
// infinities that leave no room for small steps.)
struct Tensors {
  Names weights, computed;
};

Tensors FloatTensors(const Model& model) {
  Tensors tensors;
  std::unordered_set<const Value*> mixed;
  for (const Node* node : model.graph().TopologicalOrder()) {
    for (const Value* input : node->inputs()) {
      const Tensor* weight = input ? input->initializer() : nullptr;
      if ((weight && IsFloating(weight->dtype()) && weight->rank() > 0) || mixed.count(input)) {
        mixed.insert(node->outputs().begin(), node->outputs().end());
      }
    }
  }
  for (const Port& port : InferTypes(model, {})) {
    const Value* value = model.graph().FindValue(port.name);
    if (!value || !IsFloating(port.type.dtype) || value->uses().empty()) continue;
    if (value->is_graph_output() || value->is_graph_input()) continue;
    if (value->is_initializer()) {
      tensors.weights.push_back(port.name);
    } else if (mixed.count(value)) {
      tensors.computed.push_back(port.name);
    }
  }
  return tensors;
}

// The names among `candidates` that have a gradient; barriers are failures.
Names Differentiable(const Model& model, const Names& candidates, const Names& outputs) {
  Model extended = model.Clone();
  std::vector<Seed> seeds;
  for (const std::string& output : outputs) seeds.push_back({output, ""});
  const Gradients gradients = AddGradients(extended, candidates, seeds);
  for (const Barrier& barrier : gradients.barriers) {
    FAIL_CHECK(barrier.node << ": " << barrier.reason);
  }
  Names result;
  for (size_t i = 0; i < candidates.size(); ++i) {
    if (!gradients.values[i].empty()) result.push_back(candidates[i]);
  }
  return result;
}

// Equal elements in a pooling window, as on a plain background, have no derivative.
Feeds WithGrain(Feeds feeds) {
  for (auto& [name, tensor] : feeds) {
    if (tensor.dtype() != DType::kFloat) continue;
    const Tensor grain = test::Random(DType::kFloat, tensor.dims(), 17, -0.5, 0.5);
    std::vector<float> values(tensor.data<float>().begin(), tensor.data<float>().end());
    for (size_t i = 0; i < values.size(); ++i) values[i] += grain.data<float>()[i];
    tensor = Tensor::Of<float>(tensor.dims(), values);
  }
  return feeds;
}

void CheckAsset(const std::string& folder, const std::string& file = "model.onnx") {
  const auto assets = test::Assets();
  if (!assets) return;
  const Model model = Prepared(*assets / folder / file);
  const Dataset data = Dataset::Load(*assets / folder / "calibration.npz", model);
  const std::vector<int64_t> samples =
      data.fixed_batch() == 1 ? std::vector<int64_t>{3} : std::vector<int64_t>{3, 11};
  Names outputs;
  for (const Value* output : model.graph().outputs()) outputs.push_back(output->name());
  const Tensors all = FloatTensors(model);
  const Names weights = Differentiable(model, all.weights, outputs);
  const Names computed = Differentiable(model, all.computed, outputs);
  CHECK(weights.size() >= 6);
  Names tensors = Spread(weights, 6);
  for (const std::string& name : Spread(computed, 6)) tensors.push_back(name);
  test::CheckGradientsOf(model, WithGrain(data.Gather(samples)), tensors, outputs, test::kModel);
}

TEST_CASE("gradients of encoder-sst2") { CheckAsset("encoder-sst2"); }
TEST_CASE("gradients of gpt2-style-shakespeare") { CheckAsset("gpt2-style-shakespeare"); }
TEST_CASE("gradients of shakespeare-gpt-small") { CheckAsset("shakespeare-gpt-small"); }
TEST_CASE("gradients of stories260k") { CheckAsset("stories260k"); }
TEST_CASE("gradients of vit-cifar10") { CheckAsset("vit-cifar10"); }
TEST_CASE("gradients of vit-cifar10, the other exporter") {
  CheckAsset("vit-cifar10", "model_torchscript.onnx");
}
TEST_CASE("gradients of resnet8-cifar10") { CheckAsset("resnet8-cifar10"); }
TEST_CASE("gradients of kws-dscnn") { CheckAsset("kws-dscnn"); }
TEST_CASE("gradients of mnist-cnn") { CheckAsset("mnist-cnn"); }

}  // namespace
}  // namespace sparsefuse

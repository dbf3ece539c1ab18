// Quantisation of the embedded demo in sequence: what the design says about it, measured.

#include <optional>
#include <tuple>
#include <vector>

#include "passes/quantize/linear_sequence.h"
#include "passes/statistics/matrix.h"
#include "tests/support/catch.h"
#include "tests/support/demo.h"

namespace sparsefuse {
namespace {

// All layers in `encoding`, with the inputs of later ones as they are then.
class Sequence {
 public:
  Sequence(test::Demo& demo, Encoding encoding, bool anchored) : demo_(demo) {
    PassStats stats;
    layers_ = FindLinearLayers(demo.model, demo.context, stats);
    std::vector<LayerPlan> plans;
    for (size_t i = 0; i < layers_.size(); ++i) {
      plans.push_back({.same_as = i,
                       .rule = {.encoding = encoding},
                       .width = layers_[i].inputs,
                       .anchored = anchored});
    }
    quantized_ = QuantizeInSequence(demo.model, layers_, plans, {}, demo.context);
  }

  // With every weight as `reading` has it.
  double Kl(Reading reading) const {
    Model model = demo_.model.Clone();
    for (size_t i = 0; i < layers_.size(); ++i) {
      const LinearLayer& layer = layers_[i];
      const auto& [coded, bias_change] = std::tie(quantized_[i].coded, quantized_[i].bias_change);
      const std::vector<float> rows =
          Decode(coded.codes, coded.scales, layer.inputs, coded.encoding, reading);
      const std::optional<MatrixView> view = AsMatrix(*layer.product);
      REQUIRE(view);
      SetWeight(
          model, SameMatrix(model, *view),
          Eigen::Map<const Eigen::MatrixXf>(rows.data(), layer.inputs, layer.outputs)
              .cast<double>(),
          Bias(*view) +
              Eigen::Map<const Eigen::VectorXf>(bias_change.data(), layer.outputs).cast<double>());
    }
    return demo_.Kl(model);
  }

  const CodedWeight& coded(size_t index) const { return quantized_[index].coded; }

 private:
  test::Demo& demo_;
  std::vector<LinearLayer> layers_;
  std::vector<QuantizedLayer> quantized_;
};

const Node* Product(const Model& model, int index) {
  for (const Node* node : model.graph().TopologicalOrder()) {
    if (AsMatrix(*node) && index-- == 0) return node;
  }
  return nullptr;
}

TEST_CASE("coarse weights that make up for those before them lose less", "[large]") {
  test::Demo demo(80);
  const Sequence alone(demo, Encoding::kInt4, false), anchored(demo, Encoding::kInt4, true);
  CHECK(alone.coded(0).codes == anchored.coded(0).codes);  // nothing has been lost before it
  CHECK(alone.coded(1).codes != anchored.coded(1).codes);
  CHECK(anchored.Kl(Reading::kFull) < 0.85 * alone.Kl(Reading::kFull));
}

TEST_CASE("zero blocks stay zero in weights that are solved anew", "[large]") {
  test::Demo demo(40);
  const std::optional<MatrixView> view = AsMatrix(*Product(demo.model, 4));
  REQUIRE(view);
  Eigen::MatrixXd weight = Weight(*view);
  weight.topLeftCorner(64, 64).setZero();
  SetWeight(demo.model, *view, weight, Bias(*view));
  const Sequence anchored(demo, Encoding::kInt4, true);
  const std::vector<int8_t>& codes = anchored.coded(4).codes;  // [outputs, inputs]
  int zeros = 0;
  for (int64_t n = 0; n < 64; ++n) {
    for (int64_t k = 0; k < 64; ++k) zeros += codes[static_cast<size_t>(n * view->inputs + k)] == 0;
  }
  CHECK(zeros == 64 * 64);
  CHECK(codes != Sequence(demo, Encoding::kInt4, false).coded(4).codes);
}

TEST_CASE("both readings of nested weights gain from making up for a blend of them", "[large]") {
  test::Demo demo(80);
  const Sequence alone(demo, Encoding::kNested4, false), anchored(demo, Encoding::kNested4, true);
  CHECK(anchored.Kl(Reading::kHigh) < 0.95 * alone.Kl(Reading::kHigh));
  CHECK(anchored.Kl(Reading::kFull) < 1.3 * alone.Kl(Reading::kFull));
}

}  // namespace
}  // namespace sparsefuse

// Small models through the whole quantisation of linear layers: which operator, which width, and
// that answers stay what they were.

#include "passes/quantize/quantize_linear.h"

#include <algorithm>
#include <cmath>

#include "passes/engine/engine.h"
#include "tests/support/catch.h"
#include "tests/support/models.h"
#include "tests/support/random.h"

namespace sparsefuse {
namespace {

using test::ModelWith;
using test::NormalTensor;
using Values = std::vector<std::pair<std::string, Tensor>>;

Tensor RunOn(const Model& model, const Tensor& x) {
  return Session(model, {.threads = 1, .operator_library = SPARSEFUSE_OPS_LIBRARY})
      .Run({{"x", x}})
      .front();
}

// Of the first output, ‖difference‖/‖expected‖.
double Difference(const Model& expected, const Model& found, const Tensor& x) {
  const std::vector<float> a = RunOn(expected, x).ToFloats(), b = RunOn(found, x).ToFloats();
  double error = 0, energy = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    error += std::pow(static_cast<double>(a[i]) - b[i], 2);
    energy += static_cast<double>(a[i]) * a[i];
  }
  return std::sqrt(error / energy);
}

std::vector<std::string> Operators(const Model& model) {
  std::vector<std::string> operators;
  for (const Node* node : model.graph().TopologicalOrder()) operators.push_back(node->op());
  return operators;
}

LinearOptions Int4() {
  LinearOptions options;
  options.widths.weights = WeightWidth::kInt4;
  options.widths.ends_int8 = false;
  return options;
}

PassStats Quantize(Model& model, const LinearOptions& options, Emit emit = Emit::kCustom) {
  Context context;
  context.emit = emit;
  PassStats stats;
  QuantizeLinearLayers(model, context, options, stats);
  return stats;
}

const std::string kThreeLayers = R"(agraph (float[n,64] x) => (float[n,16] y)
    <float[1] w1 = {0}, float[1] w2 = {0}, float[1] w3 = {0}> {
      a = MatMul(x, w1)
      r = Relu(a)
      b = MatMul(r, w2)
      s = Relu(b)
      y = MatMul(s, w3)
    })";
Values ThreeWeights() {
  return {{"w1", NormalTensor({64, 37}, 1)},
          {"w2", NormalTensor({37, 33}, 2)},
          {"w3", NormalTensor({33, 16}, 3)}};
}

TEST_CASE("the first and the last layer stay in 8 bits unless told otherwise") {
  const Model original = ModelWith(18, kThreeLayers, ThreeWeights());
  const Tensor x = NormalTensor({50, 64}, 4);
  LinearOptions options = Int4();
  options.widths.ends_int8 = true;
  Model model = original.Clone();
  Quantize(model, options);
  CHECK(Operators(model) == std::vector<std::string>{"QuantizedLinear8", "Relu", "QuantizedLinear4",
                                                     "Relu", "QuantizedLinear8"});
  const double ends_in_8 = Difference(original, model, x);
  CHECK(ends_in_8 < 0.2);
  model = original.Clone();
  Quantize(model, Int4());
  CHECK(Operators(model) == std::vector<std::string>{"QuantizedLinear4", "Relu", "QuantizedLinear4",
                                                     "Relu", "QuantizedLinear4"});
  CHECK(Difference(original, model, x) > ends_in_8);
  CHECK(Difference(original, model, x) < 0.25);
}

TEST_CASE("inputs and outputs that fill no group, quad or panel come out right in every form") {
  const Model original = ModelWith(18, kThreeLayers, ThreeWeights());
  const Tensor x = NormalTensor({50, 64}, 4);
  LinearOptions options = Int4();
  options.block = 16;
  Model standard = original.Clone();
  Quantize(standard, options, Emit::kStandard);
  CHECK(Operators(standard) ==
        std::vector<std::string>{"MatMulNBits", "Relu", "MatMulNBits", "Relu", "MatMulNBits"});
  CHECK(Difference(original, standard, x) < 0.2);
  for (const Encoding encoding : {Encoding::kNested1, Encoding::kNested4}) {
    options.widths.weights = WeightWidth::kNested;
    options.widths.nested = encoding;
    Model nested = original.Clone();
    Quantize(nested, options);
    // Scales that suit 4 bits clip, which low parts of Nested4 can make up for.
    CHECK(Difference(original, nested, x) < (encoding == Encoding::kNested4 ? 0.08 : 0.25));
  }
}

TEST_CASE("scales of every 64 inputs reach the operator") {
  const Model original = ModelWith(18, R"(agraph (float[n,200] x) => (float[n,40] y)
      <float[1] w = {0}> { y = MatMul(x, w) })",
                                   {{"w", NormalTensor({200, 40}, 5)}});
  LinearOptions options = Int4();
  options.scale_inputs = 64;
  Model model = original.Clone();
  Quantize(model, options);
  const Node* node = model.graph().Nodes().back();
  CHECK(node->GetInt("scale_groups", -1) == 1);
  CHECK(node->constant_input(2)->dims() == Dims{2 * 4, 32});
  CHECK(Difference(original, model, NormalTensor({20, 200}, 6)) < 0.15);
}

TEST_CASE("a weight that one layer needs in 8 bits has 8 bits for all, once in the file") {
  const Model original =
      ModelWith(18, R"(agraph (float[n,64] x) => (float[n,64] y)
      <float[1] first = {0}, float[1] w = {0}> {
        a = MatMul(x, first)
        r = Relu(a)
        b = MatMul(r, w)
        s = Relu(b)
        y = MatMul(s, w)
      })",
                {{"first", NormalTensor({64, 64}, 7)}, {"w", NormalTensor({64, 64}, 8)}});
  LinearOptions options = Int4();
  options.widths.ends_int8 = true;
  Model model = original.Clone();
  const PassStats stats = Quantize(model, options);
  std::vector<const Value*> weights;
  for (const Node* node : model.graph().TopologicalOrder()) {
    if (node->op() == "Relu") continue;
    CHECK(node->op() == "QuantizedLinear8");
    weights.push_back(node->input(1));
  }
  CHECK(weights[1] == weights[2]);
  CHECK(stats.findings[1].action.find("in 8 bits: last layer") != std::string::npos);
  CHECK(Difference(original, model, NormalTensor({20, 64}, 9)) < 0.05);
}

TEST_CASE("a tied head keeps 8 bits and its embedding reads the same bytes") {
  Model model = ModelWith(18, R"(agraph (int64[n] x) => (float[n,48] y) <float[1] table = {0}> {
        e = Gather(table, x)
        t = Transpose<perm = [1, 0]>(table)
        y = MatMul(e, t)
      })",
                          {{"table", NormalTensor({48, 32}, 10)}});
  const Model original = model.Clone();
  const PassStats stats = Quantize(model, Int4());
  CHECK(stats.findings[0].action.find("in 8 bits: tied to an embedding") != std::string::npos);
  CHECK(model.WeightBytes() < original.WeightBytes());  // 32 inputs are padded to 64
  const Tensor ids = Tensor::Of<int64_t>({5}, std::vector<int64_t>{0, 7, 13, 31, 47});
  CHECK(Difference(original, model, ids) < 0.03);
}

TEST_CASE("weights that are not finite are left alone, or refused by name") {
  Values values = ThreeWeights();
  std::vector<float> broken = values[1].second.ToFloats();
  broken[5] = NAN;
  values[1].second = Tensor::Of({37, 33}, broken);
  Model model = ModelWith(18, kThreeLayers, values);
  const PassStats stats = Quantize(model, Int4());
  CHECK(Operators(model) ==
        std::vector<std::string>{"QuantizedLinear4", "Relu", "MatMul", "Relu", "QuantizedLinear4"});
  CHECK(stats.findings[0].reason == "weight has NaN or infinite values");
  LinearOptions options = Int4();
  options.fail_on_nonfinite = true;
  Model again = ModelWith(18, kThreeLayers, values);
  try {
    Quantize(again, options);
    FAIL("not refused");
  } catch (const UserError& error) {
    CHECK(error.code == ErrorCode::kModel);
    CHECK(error.where == "tensor \"w2\"");
  }
}

TEST_CASE("rows of zeros and of one value") {
  std::vector<float> rows = NormalTensor({40, 64}, 11).ToFloats();
  std::fill_n(rows.begin() + 64, 64, 0.0f);
  std::fill_n(rows.begin() + 128, 64, 0.3f);
  const Model original = ModelWith(18, R"(agraph (float[n,64] x) => (float[n,40] y)
      <float[1] w = {0}> { y = Gemm<transB = 1>(x, w) })",
                                   {{"w", Tensor::Of({40, 64}, rows)}});
  const Tensor x = NormalTensor({20, 64}, 12);
  for (const WeightWidth width : {WeightWidth::kInt8, WeightWidth::kInt4, WeightWidth::kNested}) {
    LinearOptions options = Int4();
    options.widths.weights = width;
    Model model = original.Clone();
    Quantize(model, options);
    const std::vector<float> y = RunOn(model, x).ToFloats();
    for (size_t row = 0; row < 20; ++row) CHECK(y[row * 40 + 1] == 0);
    CHECK(Difference(original, model, x) < 0.15);
  }
}

TEST_CASE("zero blocks are found and left out, and the answers are those of the dense form") {
  std::vector<float> rows = NormalTensor({70, 128}, 13).ToFloats();
  for (size_t n = 0; n < 70; ++n) {
    for (size_t k = 0; k < 128; ++k) {
      if ((k / 4 + n / 32) % 3 != 0) rows[n * 128 + k] = 0;  // two thirds of the blocks
    }
  }
  const Model original = ModelWith(18, R"(agraph (float[n,128] x) => (float[n,70] y)
      <float[1] w = {0}> { y = Gemm<transB = 1>(x, w) })",
                                   {{"w", Tensor::Of({70, 128}, rows)}});
  const Tensor x = NormalTensor({20, 128}, 14);
  for (const WeightWidth width : {WeightWidth::kInt8, WeightWidth::kInt4, WeightWidth::kNested}) {
    LinearOptions options = Int4();
    options.widths.weights = width;
    Model sparse = original.Clone();
    const PassStats stats = Quantize(sparse, options);
    const Node* node = sparse.graph().Nodes().back();
    CHECK(node->op().starts_with("BlockSparseLinear"));
    CHECK(stats.findings[0].action.find("50 % of its blocks stored") != std::string::npos);
    CHECK(Difference(original, sparse, x) < 0.15);
    // Dense, because a decision says so.
    Context context;
    context.decisions["quantize"]["linear"]["y"] = {{"form", "custom"}, {"speedup", 1.5}};
    Model dense = original.Clone();
    PassStats other;
    QuantizeLinearLayers(dense, context, options, other);
    CHECK(dense.graph().Nodes().back()->op().starts_with("QuantizedLinear"));
    CHECK(Difference(dense, sparse, x) < 1e-5);
  }
}

TEST_CASE("mixed widths: what loses most by 4 bits keeps 8 as far as the average allows") {
  CHECK(Promote({1, 5, 3, 2}, {10, 10, 10, 10}, {false, false, false, false}, 6) ==
        std::vector<bool>{false, true, true, false});
  CHECK(Promote({1, 5, 3, 2}, {10, 10, 10, 10}, {true, false, false, false}, 6) ==
        std::vector<bool>{true, true, false, false});
  CHECK(Promote({8, 5}, {100, 10}, {false, false}, 5) == std::vector<bool>{false, true});
  CHECK(Promote({1, 1}, {10, 10}, {true, true}, 4) == std::vector<bool>{true, true});
  LinearOptions options = Int4();
  options.widths.weights = WeightWidth::kMixed;
  options.widths.bits = 6;
  Values values = ThreeWeights();
  std::vector<float> easy(64 * 37);
  for (size_t i = 0; i < easy.size(); ++i) easy[i] = static_cast<float>(i % 15) - 7;  // no loss
  values[0].second = Tensor::Of({64, 37}, easy);
  Model model = ModelWith(18, kThreeLayers, values);
  Quantize(model, options);
  CHECK(Operators(model)[0] == "QuantizedLinear4");
  CHECK(Operators(model)[2] == "QuantizedLinear8");
}

TEST_CASE("what lies before the first and behind the last layer") {
  Model model =
      ModelWith(18, R"(agraph (int64[n] ids, float[n,64] x) => (float[n,32] y, float[n,32] z)
      <float[1] table = {0}, float[1] w1 = {0}, float[1] w2 = {0}, float[1] w3 = {0}> {
        e = Gather(table, ids)
        a = MatMul(e, w1)
        b = MatMul(x, w2)
        z = Relu(b)
        y = MatMul(a, w3)
      })",
                {{"table", NormalTensor({50, 64}, 1)},
                 {"w1", NormalTensor({64, 64}, 2)},
                 {"w2", NormalTensor({64, 32}, 3)},
                 {"w3", NormalTensor({64, 32}, 4)}});
  PassStats stats;
  const std::vector<LinearLayer> layers = FindLinearLayers(model, {}, stats);
  REQUIRE(layers.size() == 3);  // w1, w2, w3
  const EndLayers ends = FindEndLayers(model, layers);
  CHECK(ends.first == std::vector<bool>{false, true, false});
  CHECK(ends.last == std::vector<bool>{false, true, true});
}

}  // namespace
}  // namespace sparsefuse

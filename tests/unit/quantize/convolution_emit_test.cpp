#include "passes/quantize/convolution_emit.h"

#include <algorithm>
#include <cmath>
#include <random>

#include "passes/engine/engine.h"
#include "tests/support/catch.h"
#include "tests/support/models.h"

namespace sparsefuse {
namespace {

using test::ModelWith;

std::vector<float> UniformValues(size_t count, uint32_t seed, float low, float high) {
  std::mt19937 random(seed);
  std::uniform_real_distribution<float> uniform(low, high);
  std::vector<float> values(count);
  for (float& v : values) v = uniform(random);
  return values;
}

size_t CountOf(const Dims& dims) { return static_cast<size_t>(*ElementCount(dims)); }

Tensor Uniform(const Dims& dims, uint32_t seed, float low = -1, float high = 1) {
  return Tensor::Of(dims, UniformValues(CountOf(dims), seed, low, high));
}

// Without our operators.
Tensor RunStandard(const Model& model, const Tensor& x, bool optimize) {
  const Session session(model, {.threads = 1, .operator_library = {}, .optimize = optimize});
  return session.Run({{"x", x}}).front();
}

// Each tensor's range is what the float model makes of `x`.
std::vector<ActivationCode> CodesOn(const Model& model, const ConvolutionPlan& plan,
                                    const Tensor& x) {
  std::vector<ActivationCode> codes;
  for (const auto& group : plan.measured) {
    Range range;
    for (const Value* value : group) {
      Tensor tensor = x;
      if (!value->is_graph_input()) {
        const std::vector<std::string> names = {value->name()};
        tensor = Session(WithOutputs(model, names), {}).Run({{"x", x}}, names).front();
      }
      for (float v : tensor.ToFloats()) range = Union(range, {std::min(v, 0.f), std::max(v, 0.f)});
    }
    codes.push_back(CodeOf(range));
  }
  return codes;
}

struct Emitted {
  Model model;
  Emission emission;
  std::vector<ActivationCode> codes;  // by group
};

Emitted EmitOn(const Model& model, const Tensor& x, const EmitOptions& options = {}) {
  Emitted emitted{model.Clone(), {}, {}};
  const Context context;
  const ConvolutionPlan plan = PlanConvolutions(emitted.model.graph(), context);
  emitted.codes = CodesOn(model, plan, x);
  FilterCache filters(PairBound::kAvx2, 1);
  emitted.emission = EmitConvolutions(emitted.model, plan, emitted.codes, filters, options);
  Verify(emitted.model);
  return emitted;
}

double SqnrDb(const Tensor& reference, const Tensor& other) {
  const std::vector<float> a = reference.ToFloats(), b = other.ToFloats();
  REQUIRE(a.size() == b.size());
  double signal = 0, noise = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    signal += static_cast<double>(a[i]) * a[i];
    noise += std::pow(static_cast<double>(a[i]) - b[i], 2);
  }
  return 10 * std::log10(signal / noise);
}

double LargestDifference(const Tensor& a, const Tensor& b) {
  const std::vector<float> x = a.ToFloats(), y = b.ToFloats();
  REQUIRE(x.size() == y.size());
  double largest = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    largest = std::max(largest, std::fabs(static_cast<double>(x[i]) - y[i]));
  }
  return largest;
}

std::map<std::string, int> OperatorCounts(const Model& model) {
  std::map<std::string, int> counts;
  for (const Node* node : model.graph().Nodes()) ++counts[node->op()];
  return counts;
}

struct Shape {
  const char* attributes;
  Dims x, w;
};

// Weights of one sign in neighbouring pairs and inputs at the top of the range: the products that a
// 16-bit sum cannot hold unless the pairs are bounded in the order in which the engine adds them.
TEST_CASE("the engine's fused kernels give the sums that the codes stand for") {
  const Shape shapes[] = {
      {"", {2, 1, 7}, {16, 1, 3}},
      {"<pads = [1,1]>", {2, 5, 9}, {8, 5, 3}},
      {"", {2, 3, 6, 6}, {16, 3, 3, 3}},
      {"<pads = [1,1,1,1], strides = [2,2]>", {2, 4, 7, 7}, {16, 4, 3, 3}},
      {"<pads = [0,1,0,1]>", {1, 16, 6, 6}, {16, 16, 2, 3}},
      {"<dilations = [2,2]>", {1, 8, 9, 9}, {20, 8, 3, 3}},
      {"<group = 2>", {1, 12, 6, 6}, {24, 6, 3, 3}},
      {"<group = 5>", {1, 15, 6, 6}, {15, 3, 3, 3}},
      {"<group = 8, pads = [1,1,1,1]>", {1, 8, 6, 6}, {8, 1, 3, 3}},
      {"<group = 6>", {1, 6, 6, 6}, {12, 1, 3, 3}},
      {"<auto_pad = \"SAME_UPPER\">", {1, 3, 5, 5}, {8, 3, 3, 3}},
      {"", {1, 10, 4, 4}, {24, 10, 1, 1}},
      {"", {1, 4, 4, 4, 4}, {16, 4, 3, 3, 3}},
  };
  uint32_t seed = 1;
  for (const Shape& shape : shapes) {
    CAPTURE(shape.attributes, ToString(shape.x), ToString(shape.w));
    std::vector<float> weights = UniformValues(CountOf(shape.w), ++seed, 0.6f, 1);
    const size_t filter = weights.size() / static_cast<size_t>(shape.w[0]);
    for (size_t i = 0; i < weights.size(); ++i) {
      if (i / filter % 2) weights[i] = -weights[i];
    }
    std::string type;
    for (int64_t d : shape.x) type += (type.empty() ? "" : ",") + std::to_string(d);
    const Model model =
        ModelWith(17,
                  "g (float[" + type +
                      "] x) => (float[] y) <float[1] w = {0}, "
                      "float[1] b = {0}> { y = Conv" +
                      std::string(shape.attributes) + "(x, w, b) }",
                  {{"w", Tensor::Of(shape.w, weights)}, {"b", Uniform({shape.w[0]}, ++seed)}});
    std::vector<float> inputs = UniformValues(CountOf(shape.x), ++seed, 0, 1);
    for (size_t i = 0; i < inputs.size(); ++i) {
      if (i % 3) inputs[i] = 1;
    }
    const Tensor x = Tensor::Of(shape.x, inputs);
    const Emitted emitted = EmitOn(model, x);
    CHECK(OperatorCounts(emitted.model) ==
          std::map<std::string, int>{{"Conv", 1}, {"DequantizeLinear", 4}, {"QuantizeLinear", 2}});
    const Tensor fused = RunStandard(emitted.model, x, true);
    const float step = std::max(emitted.codes[0].scale, emitted.codes[1].scale);
    CHECK(LargestDifference(fused, RunStandard(emitted.model, x, false)) <= 1.01 * step);
    CHECK(SqnrDb(RunStandard(model, x, false), fused) > 35);
  }
}

// Every product, by 64-bit integers.
TEST_CASE("a convolution on codes is the sum of its integer products") {
  const Dims dims = {5, 3, 3, 3};
  const Tensor weight = Uniform(dims, 1), bias = Uniform({5}, 2), x = Uniform({1, 3, 6, 6}, 3);
  const Model model =
      ModelWith(17,
                "g (float[1,3,6,6] x) => (float[1,5,4,4] y) <float[1] w = {0}, float[1] b = {0}> "
                "{ c = Conv(x, w, b) y = Relu(c) }",
                {{"w", weight}, {"b", bias}});
  Model copy = model.Clone();
  const Context context;
  const ConvolutionPlan plan = PlanConvolutions(copy.graph(), context);
  const std::vector<ActivationCode> codes = CodesOn(model, plan, x);
  const ActivationCode in = codes[plan.group.at(copy.graph().FindValue("x"))];
  const ActivationCode out = codes[plan.group.at(copy.graph().FindValue("y"))];
  CHECK(out.zero_point == 0);
  FilterCache filters(PairBound::kAvx2, 1);
  const QuantizedFilters quantized = filters.Get(*model.graph().Nodes()[0], 3);
  EmitConvolutions(copy, plan, codes, filters, {});
  const std::span<const float> real = x.data<float>();
  const Tensor result = RunStandard(copy, x, true);
  const std::span<const float> y = result.data<float>();
  for (int m = 0; m < 5; ++m) {
    const double scale = static_cast<double>(in.scale) * quantized.scales[static_cast<size_t>(m)];
    for (int place = 0; place < 16; ++place) {
      int64_t sum = std::llround(bias.data<float>()[static_cast<size_t>(m)] / scale);
      for (int k = 0; k < 27; ++k) {
        const int kh = k / 9, kw = k / 3 % 3, c = k % 3;  // reduction order
        const int at = c * 36 + (place / 4 + kh) * 6 + place % 4 + kw;
        const int64_t code = std::clamp<int64_t>(
            std::llround(real[static_cast<size_t>(at)] / in.scale) + in.zero_point, 0, 255);
        sum += (code - in.zero_point) * quantized.codes[static_cast<size_t>(m * 27 + k)];
      }
      const double coded =
          std::clamp(std::round(scale * static_cast<double>(sum) / out.scale), 0.0, 255.0);
      CHECK(y[static_cast<size_t>(m * 16 + place)] ==
            Approx(coded * out.scale).margin(1.01 * out.scale));
    }
  }
}

TEST_CASE("a channel of zeros changes nothing") {
  const Model model = ModelWith(17,
                                "g (float[2,3,8,8] x) => (float[2,16,8,8] y) <float[1] w = {0}> "
                                "{ c = Conv<pads = [1,1,1,1]>(x, w) y = Tanh(c) }",
                                {{"w", Uniform({16, 3, 3, 3}, 1)}});
  const Tensor x = Uniform({2, 3, 8, 8}, 2, -0.5, 1);  // zero point ≠ 0
  const Emitted plain = EmitOn(model, x);
  const Emitted padded = EmitOn(model, x, {.pad_channels = true, .corrections = {}});
  CHECK(OperatorCounts(plain.model)["Pad"] == 0);
  CHECK(OperatorCounts(padded.model)["Pad"] == 1);
  const Tensor reference = RunStandard(model, x, true);
  CHECK(SqnrDb(reference, RunStandard(padded.model, x, true)) > 30);
  // Pairs are other ones, so codes may differ, but no more than rounding does.
  CHECK(SqnrDb(RunStandard(plain.model, x, true), RunStandard(padded.model, x, true)) > 30);
}

constexpr const char* kNet = R"(
  g (float[2,3,12,12] x) => (float[2,7] y, float[2,8,6,6] features) <
    float[1] w0 = {0}, float[1] b0 = {0}, float[1] w1 = {0}, float[1] w2 = {0}, float[1] wd = {0},
    float[1] wg = {0}, float[1] bg = {0}, float[1] wh = {0}, float[1] bh = {0},
    float zero = {0}, float six = {6}, int64[2] flat = {0, -1}> {
    c0 = Conv<pads = [1,1,1,1]>(x, w0, b0)
    p0 = MaxPool<kernel_shape = [2,2], strides = [2,2]>(c0)
    r0 = Relu(p0)
    c1 = Conv<pads = [1,1,1,1]>(r0, w1)
    a = Add(r0, c1)
    features = Relu(a)
    d = Conv<pads = [1,1,1,1], group = 8>(features, wd)
    k6 = Clip(d, zero, six)
    c2 = Conv(features, w2)
    r2 = Relu(c2)
    k = Concat<axis = 1>(k6, r2)
    s = AveragePool<kernel_shape = [3,3], strides = [3,3]>(k)
    f = Reshape(s, flat)
    g = Gemm(f, wg, bg)
    rg = Relu(g)
    h = Gemm<transB = 1>(rg, wh, bh)
    y = Softmax(h)
  })";

Model Net() {
  return ModelWith(17, kNet,
                   {{"w0", Uniform({8, 3, 3, 3}, 1)},
                    {"b0", Uniform({8}, 2)},
                    {"w1", Uniform({8, 8, 3, 3}, 3, -0.3f, 0.3f)},
                    {"w2", Uniform({8, 8, 1, 1}, 4)},
                    {"wd", Uniform({8, 1, 3, 3}, 5)},
                    {"wg", Uniform({64, 10}, 6, -0.3f, 0.3f)},
                    {"bg", Uniform({1, 10}, 7)},
                    {"wh", Uniform({7, 10}, 8, -0.2f, 0.2f)},
                    {"bh", Uniform({7}, 9)}});
}

TEST_CASE("a whole network keeps its outputs, by name, order and value") {
  const Model model = Net();
  const Tensor x = Uniform({2, 3, 12, 12}, 10);
  const Emitted emitted = EmitOn(model, x);
  std::map<std::string, int> counts = OperatorCounts(emitted.model);
  CHECK(counts["Relu"] == 0);
  CHECK(counts["Clip"] == 0);
  CHECK(counts["Conv"] == 4);
  CHECK(counts["QuantizeLinear"] == 8);  // x, c0, c1, a, d, c2, s, g
  CHECK(emitted.model.graph().outputs()[0]->name() == "y");
  CHECK(emitted.model.graph().outputs()[1]->name() == "features");
  CHECK(emitted.emission.products.size() == 6);
  for (bool optimize : {true, false}) {
    const Session reference(model, {}), quantised(emitted.model, {.optimize = optimize});
    const std::vector<Tensor> a = reference.Run({{"x", x}}), b = quantised.Run({{"x", x}});
    CHECK(SqnrDb(a[0], b[0]) > 20);  // behind Softmax
    CHECK(SqnrDb(a[1], b[1]) > 30);
  }
  // No float weight is left, and nothing that nobody reads.
  for (const Value* value : emitted.model.graph().Initializers()) {
    CHECK_FALSE(value->uses().empty());
    CHECK((value->initializer()->dtype() != DType::kFloat || value->initializer()->size() <= 16));
  }
  CHECK(static_cast<int64_t>(emitted.model.graph().node_count()) ==
        static_cast<int64_t>(model.graph().node_count()) + emitted.emission.nodes_added -
            emitted.emission.nodes_removed);
}

TEST_CASE("corrections are added to biases, also where there was none") {
  const Model model = Net();
  const Tensor x = Uniform({2, 3, 12, 12}, 10);
  EmitOptions options;
  options.corrections["c1"] = std::vector<float>(8, 3.0f);  // no bias of its own
  const Tensor plain = RunStandard(EmitOn(model, x).model, x, true);
  const Tensor shifted = RunStandard(EmitOn(model, x, options).model, x, true);
  CHECK(LargestDifference(plain, shifted) > 0.01);
  const Emitted emitted = EmitOn(model, x, options);
  const std::string output = emitted.emission.products[1].output;
  CHECK(emitted.emission.products[1].key == "c1");
  const std::vector<std::string> names = {output};
  const Tensor got = Session(WithOutputs(emitted.model, names), {}).Run({{"x", x}}, names).front();
  const std::vector<std::string> old = {"c1"};
  const std::vector<float> was =
      Session(WithOutputs(model, old), {}).Run({{"x", x}}, old).front().ToFloats();
  double difference = 0;
  for (size_t i = 0; i < was.size(); ++i) difference += got.data<float>()[i] - was[i];
  CHECK(difference / static_cast<double>(was.size()) == Approx(3).epsilon(0.02));
}

TEST_CASE("convolutions that share a weight share its codes") {
  const Model model =
      ModelWith(17,
                "g (float[1,16,6,6] x) => (float[1,16,6,6] y) <float[1] w = {0}> "
                "{ c = Conv<pads = [1,1,1,1]>(x, w) d = Conv<pads = [1,1,1,1]>(c, w) y = Tanh(d) }",
                {{"w", Uniform({16, 16, 3, 3}, 1, -0.1f, 0.1f)}});
  const Emitted emitted = EmitOn(model, Uniform({1, 16, 6, 6}, 2));
  int codes = 0;
  for (const Value* value : emitted.model.graph().Initializers()) {
    codes += value->initializer()->dtype() == DType::kInt8 && value->initializer()->rank() == 4;
  }
  CHECK(codes == 1);
}

}  // namespace
}  // namespace sparsefuse

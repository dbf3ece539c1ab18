#include "passes/quantize/convolution.h"

#include <cmath>
#include <limits>
#include <set>

#include "onnx_io/writer.h"
#include "passes/engine/evaluate.h"
#include "passes/quantize/bias_correction.h"
#include "passes/quantize/convolution_plan.h"
#include "tests/support/catch.h"
#include "tests/support/dataset.h"
#include "tests/support/models.h"
#include "tests/support/random.h"

namespace sparsefuse {
namespace {

using test::NormalTensor;

// Three convolutions and a classifier over data of its own. `opset` and `body` can be replaced.
struct ThreeConvolutions {
  explicit ThreeConvolutions(const std::string& body =
                                 "c = Conv<pads = [1,1,1,1]>(x, w0, b0) r = Relu(c) "
                                 "d = Conv<pads = [1,1,1,1]>(r, w1) a = Add(r, d) s = Relu(a) "
                                 "e = Conv(s, w2) p = GlobalAveragePool(e) y = Flatten(p)",
                             int opset = 17)
      : teacher(test::ModelWith(opset,
                                "g (float[N,3,8,8] x) => (float[N,6] y) <float[1] w0 = {0}, "
                                "float[1] b0 = {0}, float[1] w1 = {0}, float[1] w2 = {0}> {" +
                                    body + "}",
                                {{"w0", NormalTensor({8, 3, 3, 3}, 1, 0.3f)},
                                 {"b0", NormalTensor({8}, 2)},
                                 {"w1", NormalTensor({8, 8, 3, 3}, 3, 0.1f)},
                                 {"w2", NormalTensor({6, 8, 1, 1}, 4)}})) {
    context.measure = false;
  }

  void Set(const std::string& name, const Tensor& tensor) {
    teacher.graph().FindValue(name)->set_initializer(tensor);
  }

  Model Run(const ConvolutionOptions& options = {}) {
    stats = {};
    Model student = teacher.Clone();
    QuantizeConvolutions(student, context, options, stats);
    Verify(student);
    return student;
  }
  // Reasons of all findings, which must all be skips.
  std::string Reasons() {
    const Model student = Run();
    std::string reasons;
    for (const Finding& finding : stats.findings) {
      CHECK(finding.action.empty());
      if (!reasons.empty()) reasons += " | ";
      reasons += finding.subject + ": " + finding.reason;
    }
    CHECK_FALSE(stats.changed);
    CHECK(SerializeModel(student) == SerializeModel(teacher));
    return reasons;
  }

  Model teacher;
  test::Calibration calibration{teacher, {{"x", NormalTensor({40, 3, 8, 8}, 5)}}};
  const Dataset& data = calibration.data;
  Context& context = calibration.context;
  PassStats stats;
};

TEST_CASE("convolutions become int8 and stay close") {
  ThreeConvolutions fixture;
  const Model student = fixture.Run();
  REQUIRE(fixture.stats.findings.size() == 3);
  CHECK(fixture.stats.findings[0].subject == "c");
  CHECK(fixture.stats.findings[0].action == "int8 filters [8,3,3,3], static activations");
  CHECK(fixture.stats.tensors_rewritten == 3);
  const Comparison comparison = CompareModels(Session(fixture.teacher, {}), Session(student, {}),
                                              fixture.data, fixture.context.splits.audit);
  CHECK(comparison.main().SqnrDb() > 28);
  CHECK(student.WeightBytes() < 0.5 * static_cast<double>(fixture.teacher.WeightBytes()));
}

TEST_CASE("filters of 32 weights and more become int4, rounded on what they read") {
  ThreeConvolutions fixture;
  const Model int8 = fixture.Run();
  const Model int4 = fixture.Run({.packed = true});
  REQUIRE(fixture.stats.findings.size() == 3);
  CHECK(fixture.stats.findings[0].action == "int8 filters [8,3,3,3], static activations");
  CHECK(fixture.stats.findings[1].action == "int4 filters [8,8,3,3], static activations");
  CHECK(fixture.stats.findings[2].action == "int8 filters [6,8,1,1], static activations");
  const auto distance = [&](const Model& student) {
    return CompareModels(Session(fixture.teacher, {}), Session(student, {}), fixture.data,
                         fixture.context.splits.audit)
        .main()
        .SqnrDb();
  };
  CHECK(distance(int4) > 20);
  CHECK(distance(int4) < distance(int8));

  fixture.Run({.packed = true, .int8 = {"d"}});
  CHECK(fixture.stats.findings[1].action.starts_with("int8"));
  CHECK(EndProducts(fixture.teacher.graph(), fixture.context) == std::set<std::string>{"c", "e"});
}

TEST_CASE("every convolution that stays in float has its reason") {
  ThreeConvolutions fixture;
  SECTION("no data") {
    fixture.context.calibration = nullptr;
    CHECK(fixture.Reasons() ==
          "c: static int8 needs calibration data | d: static int8 needs calibration data | "
          "e: static int8 needs calibration data");
  }
  SECTION("excluded") {
    fixture.context.exclude_op_types = {"Conv"};
    CHECK(fixture.Reasons() == "c: excluded | d: excluded | e: excluded");
  }
  SECTION("activations that are not finite") {
    fixture.Set("b0", Tensor::Of({8}, std::vector<float>(8, 3e38f)));
    fixture.Set("w0", NormalTensor({8, 3, 3, 3}, 1, 1e38f));
    CHECK(fixture.Reasons().find("has NaN or infinite values") != std::string::npos);
  }
}

TEST_CASE("weights that are not finite leave only their own convolution in float") {
  ThreeConvolutions fixture(
      "c = Conv<pads = [1,1,1,1]>(x, w0, b0) r = Relu(c) "
      "d = Conv<pads = [1,1,1,1]>(r, w1) e = Conv(r, w2) p = GlobalAveragePool(e) "
      "q = GlobalAveragePool(d) y = Flatten(p)");
  std::vector<float> weights(8 * 8 * 9, 0.1f);
  weights[7] = std::numeric_limits<float>::quiet_NaN();
  fixture.Set("w1", Tensor::Of({8, 8, 3, 3}, weights));
  fixture.Run();
  REQUIRE(fixture.stats.findings.size() == 3);
  CHECK(fixture.stats.findings[0].reason == "weight or bias has NaN or infinite values");
  CHECK(fixture.stats.findings[1].subject == "c");
  CHECK_FALSE(fixture.stats.findings[1].action.empty());
}

TEST_CASE("old opsets, subgraphs, ConvTranspose and quantised models are left alone") {
  CHECK(ThreeConvolutions(
            "c = Conv<pads = [1,1,1,1]>(x, w0, b0) e = Conv(c, w2) p = GlobalAveragePool(e) "
            "y = Flatten(p)",
            12)
            .Reasons()
            .find("c: opset 12 has no per-channel DequantizeLinear, 13 has") == 0);
  CHECK(ThreeConvolutions("c = Conv<pads = [1,1,1,1]>(x, w0, b0) s = Constant<value_float = 0.1>() "
                          "z = Constant<value = uint8 {0}>() q = QuantizeLinear(c, s, z) "
                          "f = DequantizeLinear(q, s, z) e = Conv(f, w2) p = GlobalAveragePool(e) "
                          "y = Flatten(p)")
            .Reasons() == "c: the model is quantised already | e: the model is quantised already");
  ThreeConvolutions nested(
      "t = Constant<value = bool {1}>() c = If(t) <then_branch = then () => "
      "(float[N,8,8,8] u) { u = Conv<pads = [1,1,1,1]>(x, w0, b0) }, else_branch = "
      "other () => (float[N,8,8,8] v) { v = Conv<pads = [1,1,1,1]>(x, w0) }> "
      "e = ConvTranspose(c, w2) p = GlobalAveragePool(e) y = Flatten(p)");
  nested.Set("w2", NormalTensor({8, 6, 1, 1}, 4));
  CHECK(nested.Reasons() ==
        "e: ONNX Runtime has no 8-bit ConvTranspose | u: in a subgraph or function | "
        "v: in a subgraph or function");
}

TEST_CASE("bias correction makes channel means right") {
  ThreeConvolutions fixture;
  const auto quantise = [&](const Corrections& corrections) {
    Model model = fixture.teacher.Clone();
    const ConvolutionPlan plan = PlanConvolutions(model.graph(), fixture.context);
    const Histograms histograms =
        CollectHistograms(fixture.teacher, {"x", "r", "d", "s", "e", "p"}, fixture.context);
    std::vector<ActivationCode> codes;
    for (const auto& group : plan.measured) {
      codes.push_back(CodeOf(ChooseRange(histograms.at(group[0]->name()), RangeMethod::kMinMax)));
      codes.back().scale *= 0.6f;  // clip, so that there is something to correct
    }
    FilterCache filters(PairBound::kAvx2, 1);
    Candidate candidate{std::move(model), {}};
    candidate.products =
        EmitConvolutions(candidate.model, plan, codes, filters, {.corrections = corrections})
            .products;
    return candidate;
  };
  const Corrections corrections = CorrectBiases(fixture.teacher, quantise, fixture.context);
  REQUIRE(corrections.size() == 3);
  CHECK(corrections.at("d").size() == 8);

  // Σ over channels of the squared difference of means, of the last convolution.
  const auto mean_error = [&](const Corrections& used) {
    const Candidate candidate = quantise(used);
    const std::vector<std::string> a = {"e"}, b = {candidate.products[2].output};
    std::vector<double> difference(6);
    const Feeds feeds = fixture.data.Gather(CalibrationSamples(fixture.context));
    const Tensor was = Session(WithOutputs(fixture.teacher, a), {}).Run(feeds, a).front();
    const Tensor is = Session(WithOutputs(candidate.model, b), {}).Run(feeds, b).front();
    for (size_t i = 0; i < difference.size() * 64 * static_cast<size_t>(was.dims()[0]); ++i) {
      difference[i / 64 % 6] += is.data<float>()[i] - was.data<float>()[i];
    }
    double sum = 0;
    for (double d : difference) sum += d * d;
    return sum;
  };
  CHECK(mean_error(corrections) < 1e-3 * mean_error({}));
}

TEST_CASE("samples for bias correction follow the cost") {
  CHECK(CorrectionSamples(300, 10, 1e6) == 300);
  CHECK(CorrectionSamples(512, 50, 4e9) == kFewestCorrectionSamples);
  CHECK(CorrectionSamples(512, 100, 1e8) == 200);
  CHECK(CorrectionSamples(5, 50, 4e9) == 5);
}

}  // namespace
}  // namespace sparsefuse

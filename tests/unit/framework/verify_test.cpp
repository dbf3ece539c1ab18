#include "passes/framework/verify.h"

#include <cmath>

#include "onnx_io/text.h"
#include "passes/framework/probes.h"
#include "tests/support/catch.h"
#include "tests/support/dataset.h"
#include "tests/support/support.h"

namespace sparsefuse {
namespace {

using test::Contains;

// y = x·w, so that every error can be made by choosing w.
Model Linear(const std::string& weights, const std::string& tail = "y = MatMul(x, w)") {
  return ModelFromText(R"(<ir_version: 8, opset_import: ["" : 17]>
      g (float[N,2] x) => (float[N,2] y) <float[2,2] w = {)" +
                       weights + "}> {" + tail + "}");
}

Reference ReferenceOf(const Model& teacher, const Dataset* data = nullptr) {
  Context context;
  context.teacher = &teacher;
  context.calibration = data;
  if (data) context.splits = MakeSplits(data->size(), 0);
  return MakeReference(teacher, context);
}

std::string Verdict(const Reference& reference, const Model& student, Exactness exactness) {
  try {
    VerifyAgainst(
        reference, [&] { return Session(student, {}); }, exactness);
  } catch (const UserError& error) {
    CHECK(error.code == ErrorCode::kVerify);
    return error.Line();
  }
  return "passed";
}

Dataset Sines(const Model& model, int64_t samples) {
  std::vector<float> values;
  for (int64_t i = 0; i < 2 * samples; ++i) values.push_back(std::sin(static_cast<float>(i)));
  return test::MakeDataset(model, {{"x", Tensor::Of<float>({samples, 2}, values)}});
}

TEST_CASE("the same model passes, on probes and on data") {
  const Model model = Linear("1, 2, 3, 4");
  const Reference probes = ReferenceOf(model);
  CHECK(probes.basis == Basis::kProbes);
  CHECK(Verdict(probes, model, Exactness::kLossless) == "passed");

  const Dataset data = Sines(model, 20);
  const Reference reference = ReferenceOf(model, &data);
  CHECK(reference.basis == Basis::kData);
  CHECK(reference.reason.empty());
  int64_t samples = 0;
  for (const Feeds& feeds : reference.feeds) samples += feeds[0].second.dims()[0];
  CHECK(samples == 8);
  const Verification result = VerifyAgainst(
      reference, [&] { return Session(model, {}); }, Exactness::kLossless);
  CHECK(std::string(result.Level()) == "full");
  CHECK(result.max_error == 0);
  CHECK(result.cosine == Approx(1));
}

TEST_CASE("lossless means 1e-4 of the largest element") {
  const Model model = Linear("1, 0, 0, 1");
  const Reference reference = ReferenceOf(model);
  CHECK(reference.tolerance == 1e-4);
  CHECK(Verdict(reference, Linear("1.00009, 0, 0, 1"), Exactness::kLossless) == "passed");
  CHECK(Contains(Verdict(reference, Linear("1.0002, 0, 0, 1.0002"), Exactness::kLossless),
                 "output \"y\": differs from the original's by 0.0002 of its largest element"));
}

TEST_CASE("outputs that are rounding noise are held to that noise") {
  const Model model = Linear("1, 0, 0, 1");
  Reference reference = ReferenceOf(model);
  CHECK(reference.noise.at(0) < 1e-5);
  const Model other = Linear("1.02, 0, 0, 1.02");
  reference.noise = {0.001};
  CHECK(Verdict(reference, other, Exactness::kLossless) != "passed");
  reference.noise = {0.003};
  CHECK(Verdict(reference, other, Exactness::kLossless) == "passed");
}

TEST_CASE("answers that are nothing but rounding are recognised") {
  const auto model = [](const char* last) {
    return ModelFromText(std::string(R"(<ir_version: 8, opset_import: ["" : 17]>
        g (float[2,64] x) => (float[2,64] y) <float c = {64}> {
          a = Add(x, c)  b = Sub(a, c)  y = )") +
                         last + "(b, x) }");
  };
  CHECK(ReferenceOf(model("Add")).noise.at(0) < 1e-5);
  const Reference reference = ReferenceOf(model("Sub"));  // what the 64 rounded away
  CHECK(reference.noise.at(0) > 0.01);
  CHECK(reference.basis == Basis::kRunning);
  CHECK(reference.reason == "the original's answers are rounding noise");
}

TEST_CASE("lossy means a mean cosine, on data only") {
  const Model model = Linear("1, 0, 0, 1");
  const Model near = Linear("1, 0.2, -0.2, 1");  // turned by atan 0.2: cosine 0.981
  const Model far = Linear("1, 0.5, -0.5, 1");   // atan 0.5: 0.894
  CHECK(Verdict(ReferenceOf(model), far, Exactness::kLossy) == "passed");

  const Dataset data = Sines(model, 20);
  const Reference reference = ReferenceOf(model, &data);
  CHECK(Verdict(reference, near, Exactness::kLossy) == "passed");
  const Verification result = VerifyAgainst(
      reference, [&] { return Session(near, {}); }, Exactness::kLossy);
  CHECK(result.cosine == Approx(1 / std::sqrt(1.04)).epsilon(1e-4));
  CHECK(
      Contains(Verdict(reference, far, Exactness::kLossy),
               "output \"y\": mean cosine with the original's is 0.8944, at least 0.95 is wanted"));
  CHECK_NOTHROW(VerifyAgainst(
      reference, [&] { return Session(far, {}); }, Exactness::kLossy, 0.89));
}

TEST_CASE("answers must stay finite and may not become constant, however lossy the pass") {
  const Reference reference = ReferenceOf(Linear("1, 0, 0, 1"));
  CHECK(Contains(Verdict(reference, Linear("1, 0, 0, 1", "a = Relu(x) h = MatMul(a, w) y = Log(h)"),
                         Exactness::kLossy),
                 "not finite where the original's are"));
  CHECK(Contains(Verdict(reference, Linear("0, 0, 0, 0"), Exactness::kLossy),
                 "every element is the same"));
}

TEST_CASE("what the original's own answers lack is not asked for") {
  const std::string log = "a = Relu(x) h = MatMul(a, w) y = Log(h)";  // −inf here and there
  const Model model = Linear("1, 0, 0, 1", log);
  CHECK(Verdict(ReferenceOf(model), model, Exactness::kLossless) == "passed");
  const Model zero = Linear("0, 0, 0, 0");
  CHECK(Verdict(ReferenceOf(zero), zero, Exactness::kLossless) == "passed");
}

TEST_CASE("a missing output, another type or shape, and a model that does not load") {
  const Reference reference = ReferenceOf(Linear("1, 0, 0, 1"));
  const auto other = [](const std::string& type, const std::string& name, const std::string& body) {
    return ModelFromText(R"(<ir_version: 8, opset_import: ["" : 17]>
        g (float[N,2] x) => ()" +
                         type + " " + name + ") {" + body + "}");
  };
  CHECK(Contains(Verdict(reference, other("float[N,2]", "z", "z = Relu(x)"), Exactness::kLossy),
                 "output \"y\": is missing"));
  CHECK(Contains(
      Verdict(reference, other("double[N,2]", "y", "y = Cast<to = 11>(x)"), Exactness::kLossy),
      "output \"y\": has type double, the original's has float"));
  const Model longer = other("float[M,2]", "y", "y = Concat<axis = 0>(x, x)");
  CHECK(Contains(Verdict(reference, longer, Exactness::kLossless),
                 "output \"y\": its shape or type differs"));
  CHECK(Verdict(reference, longer, Exactness::kLossy) ==
        "passed");  // an open dim may follow the data
  CHECK(Contains(Verdict(reference, other("float[N]", "y", "y = ReduceSum<keepdims = 0>(x)"),
                         Exactness::kLossy),
                 "output \"y\": its shape or type differs"));
  CHECK(Contains(
      Verdict(reference, other("float[N,2]", "y", "y = NoSuchOperator(x)"), Exactness::kLossy),
      "the model no longer loads or runs"));
}

TEST_CASE("integer answers must be equal but for a few") {
  const Model model = Linear("1, 0, 0, 1");
  const auto count = [](const char* bias) {
    return ModelFromText(std::string(R"(<ir_version: 8, opset_import: ["" : 17]>
        g (float[N,64] x) => (int64[N,64] y) <float b = {)") +
                         bias + "}> { s = Add(x, b) y = Cast<to = 7>(s) }");
  };
  const Reference reference = ReferenceOf(count("0.5"));
  CHECK(Verdict(reference, count("0.5"), Exactness::kLossless) == "passed");
  CHECK(Contains(Verdict(reference, count("0.6"), Exactness::kLossless), "elements differ"));
}

TEST_CASE("a model that the engine cannot load is not compared, and says so") {
  const Model model = ModelFromText(R"(<ir_version: 8, opset_import: ["" : 17, "elsewhere" : 1]>
      g (float[2] x) => (float[2] y) { y = elsewhere.Unknown(x) })");
  const Reference reference = ReferenceOf(model);
  CHECK(reference.basis == Basis::kNothing);
  CHECK(Contains(reference.reason, "the engine cannot load the original"));
  const Verification result = VerifyAgainst(
      reference, [&]() -> Session { throw InternalError("must not be opened"); },
      Exactness::kLossless);
  CHECK(std::string(result.Level()) == "structure");
  CHECK_FALSE(result.reason.empty());
}

TEST_CASE("models that draw random numbers are only run") {
  const Model model = ModelFromText(R"(<ir_version: 8, opset_import: ["" : 17]>
      g (float[2,2] x) => (float[2,2] y) { r = RandomNormalLike(x)  y = Add(x, r) })");
  const Reference reference = ReferenceOf(model);
  CHECK(reference.basis == Basis::kRunning);
  CHECK(Verdict(reference, model, Exactness::kLossless) == "passed");
}

TEST_CASE("models of 16 bits and quantised ones have the coarse tolerance") {
  const Model half = ModelFromText(R"(<ir_version: 8, opset_import: ["" : 17]>
      g (float[2,2] x) => (float[2,2] y) { h = Cast<to = 10>(x)  y = Cast<to = 1>(h) })");
  CHECK(ReferenceOf(half).tolerance == 1e-2);
  const Model quantised = ModelFromText(R"(<ir_version: 8, opset_import: ["" : 17]>
      g (float[2,2] x) => (float[2,2] y) <float s = {0.1}, int8 z = {0}> {
        q = QuantizeLinear(x, s, z)  y = DequantizeLinear(q, s, z) })");
  CHECK(ReferenceOf(quantised).tolerance == 1e-2);
}

TEST_CASE("without the library the answers must be those of with it") {
  const Model model = Linear("1, 0, 0, 1");
  const Reference reference = ReferenceOf(model);
  const Session session(model, {});
  CHECK(VerifyBodies(reference, session, Session(Linear("1, 0.01, -0.01, 1"), {})).cosine > 0.999);
  CHECK_THROWS_AS(VerifyBodies(reference, session, Session(Linear("1, 0.1, -0.1, 1"), {})),
                  UserError);
  CHECK_THROWS_AS(VerifyBodies(reference, session, Session(Linear("0, 0, 0, 0"), {})), UserError);
}

TEST_CASE("signatures are compared by name, order and type") {
  const auto model = [](const char* text) {
    return ModelFromText(std::string(R"(<ir_version: 8, opset_import: ["" : 17]> )") + text);
  };
  const Model a = model("g (float[2] x) => (float[2] y, float[2] z) { y = Relu(x) z = Tanh(x) }");
  CHECK_NOTHROW(VerifySignature(a, a));
  for (const char* text :
       {"g (float[2] x) => (float[2] z, float[2] y) { y = Relu(x) z = Tanh(x) }",
        "g (float[2] x) => (float[2] y) { y = Relu(x) }",
        "g (float[2] w) => (float[2] y, float[2] z) { y = Relu(w) z = Tanh(w) }",
        "g (float[2] x, float[2] w) => (float[2] y, float[2] z) { y = Relu(x) z = Tanh(w) }",
        "g (double[2] x) => (float[2] y, float[2] z) { y = Relu(x) z = Tanh(x) }"}) {
    INFO(text);
    CHECK_THROWS_AS(VerifySignature(a, model(text)), UserError);
  }
}

TEST_CASE("probes fit the declared types, stay in range and follow the seed") {
  const Model model = ModelFromText(R"(<ir_version: 8, opset_import: ["" : 17]>
      g (float[batch,3,length] x, int64[batch,length] ids, bool[batch,length] mask, int32[1] n,
         float16[4] h, float[length,batch] t) => (float[batch,3,length] y) { y = Relu(x) })");
  const Session session(model, {});
  const Feeds feeds = MakeProbe(session.inputs(), 5, {.first = 2, .other = 7});
  REQUIRE(feeds.size() == 6);
  CHECK(feeds[0].second.dims() == Dims{2, 3, 7});
  CHECK(feeds[1].second.dims() == Dims{2, 7});
  std::vector<float> floats = feeds[0].second.ToFloats();
  CHECK(*std::min_element(floats.begin(), floats.end()) >= -1);
  CHECK(*std::max_element(floats.begin(), floats.end()) < 1);
  CHECK(*std::max_element(floats.begin(), floats.end()) > 0.5f);
  const std::vector<int64_t> ids = feeds[1].second.ToInts();
  CHECK(std::count(ids.begin(), ids.end(), 0) + std::count(ids.begin(), ids.end(), 1) == 14);
  CHECK(std::count(ids.begin(), ids.end(), 1) > 0);
  CHECK(feeds[2].second.dtype() == DType::kBool);
  CHECK(feeds[3].second.ToInts() == std::vector<int64_t>{1});
  CHECK(feeds[4].second.dtype() == DType::kFloat16);
  CHECK(feeds[5].second.dims() == Dims{7, 2});  // lengths follow the symbols, not the axes

  CHECK(MakeProbe(session.inputs(), 5, {.first = 2, .other = 7})[0].second.ToFloats() == floats);
  CHECK(MakeProbe(session.inputs(), 6, {.first = 2, .other = 7})[0].second.ToFloats() != floats);
}

TEST_CASE("probes are refused for types and sizes that cannot be made") {
  const Port text = {"words", {DType::kString, true, {int64_t{2}}}};
  CHECK_THROWS_AS(MakeProbe(std::vector{text}, 0), UserError);
  const Port huge = {"x", {DType::kFloat, true, {int64_t{1} << 40, int64_t{1} << 40}}};
  CHECK_THROWS_AS(MakeProbe(std::vector{huge}, 0), UserError);
}

}  // namespace
}  // namespace sparsefuse

#include "passes/framework/runner.h"

#include "onnx_io/text.h"
#include "tests/support/catch.h"
#include "tests/support/error_of.h"
#include "tests/support/support.h"

namespace sparsefuse {
namespace {

constexpr const char* kModel = R"(<ir_version: 8, opset_import: ["" : 17]>
    g (float[2,2] x) => (float[2,2] y) <float[2,2] w = {1, 2, 3, 4}> {
      h = MatMul(x, w)
      y = Relu(h)
    })";

using Action = PassStats (*)(Model&, Context&);

template <Action action>
class ActionPass final : public Pass {
 public:
  PassStats Run(Model& model, Context& context) override { return action(model, context); }
};

template <Action action>
PassInfo Info(std::string_view name, Exactness exactness = Exactness::kLossless) {
  return {.name = name,
          .summary = "",
          .exactness = exactness,
          .params = {},
          .make = [](const Params&) -> std::unique_ptr<Pass> {
            return std::make_unique<ActionPass<action>>();
          }};
}

void SetWeights(Model& model, const std::vector<float>& values) {
  model.graph().FindValue("w")->set_initializer(Tensor::Of<float>({2, 2}, values));
}

PassStats DoNothing(Model&, Context&) { return {}; }
PassStats SameWeights(Model& model, Context&) {
  SetWeights(model, {1, 2, 3, 4});
  return {.changed = true};
}
PassStats LieAboutWeights(Model& model, Context&) {
  SetWeights(model, {1, 2, 3, 4.5f});
  return {.changed = false};
}
PassStats LieAboutNames(Model& model, Context&) {
  model.graph().Nodes()[0]->set_name("renamed");
  return {.changed = false};
}
PassStats BreakNumbers(Model& model, Context&) {
  SetWeights(model, {1, 2, 3, 4.5f});
  return {.changed = true};
}
PassStats BreakSignature(Model& model, Context&) {
  model.graph().AddGraphOutput(model.graph().FindValue("h"));
  return {.changed = true};
}
PassStats MakeCycle(Model& model, Context&) {
  const auto nodes = model.graph().Nodes();
  model.graph().SetInput(nodes[0], 0, nodes[1]->output(0));
  return {.changed = true};
}
PassStats ThrowUserError(Model& model, Context&) {
  throw UserError(ErrorCode::kUnsupported, "cannot").At(model.graph().Nodes()[0]->Describe());
}
PassStats ThrowInternalError(Model&, Context&) { throw InternalError("oops"); }

struct Fixture {
  Model teacher = ModelFromText(kModel);
  Model student = teacher.Clone();
  Context context;
  RunnerOptions options;
  Fixture() { context.teacher = &teacher; }

  std::vector<PassReport> Run(const std::vector<PassInfo>& infos) {
    std::vector<ConfiguredPass> passes;
    for (const PassInfo& info : infos) passes.push_back({&info, Params::Defaults(info.params)});
    return RunPasses(student, passes, context, options);
  }
};

std::string RunError(Fixture& fixture, const std::vector<PassInfo>& infos, ErrorCode code) {
  return test::ErrorOf(code, [&] { fixture.Run(infos); });
}

TEST_CASE("honest passes run in order and are reported") {
  Fixture fixture;
  std::vector<std::string> finished;
  fixture.options.finished = [&](const PassReport& report) { finished.push_back(report.name); };
  const auto reports = fixture.Run({Info<DoNothing>("nothing"), Info<SameWeights>("same")});
  REQUIRE(reports.size() == 2);
  CHECK(finished == std::vector<std::string>{"nothing", "same"});
  CHECK_FALSE(reports[0].stats.changed);
  CHECK(reports[1].stats.changed);
  CHECK(reports[1].verification.basis == Basis::kProbes);
  CHECK(reports[1].weight_bytes_before == 16);
  CHECK(reports[1].weight_bytes_after == 16);
  CHECK(reports[1].seconds >= 0);
  CHECK(reports[1].verify_seconds > 0);
  CHECK(reports[1].peak_bytes > (1 << 20));
}

TEST_CASE("a pass that lies about having changed nothing is a bug that is found") {
  for (const PassInfo& info : {Info<LieAboutWeights>("liar"), Info<LieAboutNames>("liar")}) {
    Fixture fixture;
    try {
      fixture.Run({info});
      FAIL_CHECK("not found");
    } catch (const InternalError& error) {
      CHECK(std::string(error.what()).find("pass 1/1 liar: ") == 0);
    }
  }
}

TEST_CASE("a lie about a large weight is found as well") {
  Fixture fixture;
  const std::vector<float> many(4096, 1);
  Graph& graph = fixture.student.graph();
  Value* large = graph.AddInitializer("large", Tensor::Of<float>({4096}, many));
  graph.AddNode({.op = "Identity", .inputs = {large}, .outputs = {"unused"}});
  const ModelSnapshot before(fixture.student);
  CHECK(before == ModelSnapshot(fixture.student));
  std::vector<float> other = many;
  large->set_initializer(Tensor::Of<float>({4096}, other));
  CHECK(before == ModelSnapshot(fixture.student));  // other bytes, same content
  other.back() = 2;
  large->set_initializer(Tensor::Of<float>({4096}, other));
  CHECK_FALSE(before == ModelSnapshot(fixture.student));
}

TEST_CASE("broken numbers, signatures and structure are verification errors that name the pass") {
  Fixture numbers, signature, structure;
  CHECK(RunError(numbers, {Info<DoNothing>("nothing"), Info<BreakNumbers>("breaker")},
                 ErrorCode::kVerify)
            .find("pass 2/2 breaker: output \"y\": differs from the original's by ") == 0);
  CHECK(RunError(signature, {Info<BreakSignature>("breaker")}, ErrorCode::kVerify)
            .find("pass 1/1 breaker: output 1: the pass broke the graph: was \"nothing\", is "
                  "\"h\"") == 0);
  CHECK(RunError(structure, {Info<MakeCycle>("breaker")}, ErrorCode::kVerify)
            .find("the pass broke the graph: ") != std::string::npos);
}

TEST_CASE("exactness is that of the least exact pass so far") {
  // On probes a lossy pass need not agree; a lossless one after it is not asked to either.
  Fixture fixture;
  CHECK_NOTHROW(fixture.Run(
      {Info<BreakNumbers>("lossy", Exactness::kLossy), Info<BreakNumbers>("lossless")}));
  // One that changed nothing does not loosen what follows.
  Fixture strict;
  CHECK(RunError(strict,
                 {Info<DoNothing>("lossy", Exactness::kLossy), Info<BreakNumbers>("lossless")},
                 ErrorCode::kVerify)
            .find("pass 2/2 lossless") == 0);
}

TEST_CASE("errors of a pass name the pass and keep their place") {
  Fixture user, internal;
  CHECK(RunError(user, {Info<DoNothing>("a"), Info<ThrowUserError>("b"), Info<DoNothing>("c")},
                 ErrorCode::kUnsupported) == "pass 2/3 b: node \"h\" (MatMul): cannot");
  try {
    internal.Run({Info<ThrowInternalError>("b")});
    FAIL("no error");
  } catch (const InternalError& error) {
    CHECK(std::string(error.what()) == "pass 1/1 b: oops");
  }
}

TEST_CASE("models that the engine cannot run are checked in structure only") {
  Fixture fixture;
  fixture.teacher = ModelFromText(R"(<ir_version: 8, opset_import: ["" : 17, "elsewhere" : 1]>
      g (float[2,2] x) => (float[2,2] y) <float[2,2] w = {1, 2, 3, 4}> {
        h = MatMul(x, w)
        y = elsewhere.Unknown(h)
      })");
  fixture.student = fixture.teacher.Clone();
  const auto reports = fixture.Run({Info<BreakNumbers>("unseen")});
  CHECK(reports[0].verification.basis == Basis::kNothing);
  CHECK(std::string(reports[0].verification.Level()) == "structure");
  CHECK_FALSE(reports[0].verification.reason.empty());
  CHECK_FALSE(RunError(fixture, {Info<BreakSignature>("seen")}, ErrorCode::kVerify).empty());
}

TEST_CASE("dumps are numbered, and written before the checks") {
  const test::TempDir directory;
  Fixture fixture;
  fixture.options.dump_after = "all";
  fixture.options.dump_directory = directory / "dumps";
  CHECK_THROWS_AS(fixture.Run({Info<DoNothing>("nothing"), Info<BreakNumbers>("breaker")}),
                  UserError);
  const auto dump = [&](const char* name) { return test::ReadFile(directory / "dumps" / name); };
  CHECK(dump("00-input.txt") == ToText(fixture.teacher));
  CHECK(dump("01-nothing.txt") == ToText(fixture.teacher));
  CHECK(dump("02-breaker.txt") == ToText(fixture.student));

  const test::TempDir one;
  Fixture second;
  second.options.dump_after = "same";
  second.options.dump_directory = one.path();
  second.Run({Info<DoNothing>("nothing"), Info<SameWeights>("same")});
  CHECK(std::filesystem::exists(one / "02-same.txt"));
  CHECK_FALSE(std::filesystem::exists(one / "01-nothing.txt"));
}

TEST_CASE("dumps that cannot be") {
  Fixture unknown;
  unknown.options.dump_after = "nothin";
  CHECK(RunError(unknown, {Info<DoNothing>("nothing")}, ErrorCode::kUsage) ==
        "--dump-after: no pass of this pipeline is called \"nothin\"; did you mean \"nothing\"?");
  const test::TempDir directory;
  test::WriteFile(directory / "file", "");
  Fixture blocked;
  blocked.options.dump_after = "all";
  blocked.options.dump_directory = directory / "file";
  CHECK(RunError(blocked, {Info<DoNothing>("nothing")}, ErrorCode::kWrite)
            .find("the dump cannot be written") != std::string::npos);
}

}  // namespace
}  // namespace sparsefuse

// Choices made from given losses and savings, and what timing decided.

#include "passes/prune/choose.h"

#include <cmath>
#include <numeric>

#include "onnx_io/error.h"
#include "passes/prune/latency_savings.h"
#include "tests/support/catch.h"
#include "tests/unit/analysis/graphs.h"

namespace sparsefuse {
namespace {

// Two layers of 8 neurons, one behind the other, and the options to keep 6, 4 or 2 of each.
class TwoLayers {
 public:
  TwoLayers()
      : model_(test::ParseGraph(R"(
<ir_version: 10, opset_import: ["" : 21]>
agraph (float[B,4] x) => (float[B,4] y)
<float[4,8] w1 = ?, float[8,8] w2 = ?, float[8,4] w3 = ?>
{
  h1 = MatMul (x, w1)
  r1 = Relu (h1)
  [middle] h2 = MatMul (r1, w2)
  r2 = Relu (h2)
  [last] y = MatMul (r2, w3)
}
)")),
        structure_(FindStructure(model_)),
        modules_(FindPrunable(structure_)) {
    REQUIRE(modules_.size() == 2);
    for (const Prunable& prunable : modules_) {
      options.push_back({.prunable = &prunable});
      for (const int64_t count : {6, 4, 2}) {
        std::vector<int64_t> kept(static_cast<size_t>(count));
        std::iota(kept.begin(), kept.end(), 0);
        options.back().options.push_back({kept, 1.0 / static_cast<double>(count)});
      }
    }
  }

  const Model& model() const { return model_; }
  std::vector<size_t> Counts(const std::vector<Choice>& choices) const {
    std::vector<size_t> counts(2, 8);
    for (const Choice& choice : choices) {
      counts.at(static_cast<size_t>(choice.prunable - modules_.data())) = choice.kept.size();
    }
    return counts;
  }

  std::vector<ModuleOptions> options;

 private:
  Model model_;
  Structure structure_;
  std::vector<Prunable> modules_;
};

using Counts = std::vector<size_t>;

TEST_CASE("what is missed least goes, until it is really enough") {
  TwoLayers layers;
  layers.options[0].options[0].measured = 0.01;  // for what was predicted
  layers.options[1].correction = 10;
  const ProductCosts costs(layers.model(), ProductCosts::Unit::kParameters, {});
  const Savings savings = SavingsOf(layers.options, costs);
  CHECK(savings.all == 4 * 8 + 8 * 8 + 8 * 4);
  CHECK(savings.whole == savings.all);
  CHECK(savings.alone == std::vector<std::vector<double>>{{24, 48, 72}, {24, 48, 72}});
  CHECK(layers.Counts(ChooseByRatio(layers.options, savings, 0.18)) == Counts{6, 8});
  CHECK(layers.Counts(ChooseByRatio(layers.options, savings, 0.5)) == Counts{2, 8});
  // 72 + 24 of 128 are 0.75, but what both take of w2 counts once.
  const std::vector<Choice> more = ChooseByRatio(layers.options, savings, 0.7);
  CHECK(savings.together(more) >= 0.7 * savings.all);
  CHECK(layers.Counts(more) == Counts{2, 4});
}

TEST_CASE("a ratio out of reach names the best") {
  TwoLayers layers;
  const ProductCosts costs(layers.model(), ProductCosts::Unit::kParameters, {});
  const Savings savings = SavingsOf(layers.options, costs);
  try {
    ChooseByRatio(layers.options, savings, 0.9);
    FAIL("nothing was thrown");
  } catch (const UserError& error) {
    CHECK(error.code == ErrorCode::kConfig);
    CHECK(error.message ==
          "ratio 0.9 cannot be reached: 0.843 is the most that these units can save");
  }
}

TEST_CASE("between measured times lies a rising line") {
  const std::vector<std::pair<double, double>> points = {{2, 1}, {4, 0.5}, {8, 3}};
  CHECK(Interpolate(points, 1) == Approx(0.5));
  CHECK(Interpolate(points, 2) == Approx(1));
  CHECK(Interpolate(points, 3) == Approx(1));  // 0.5 is noise
  CHECK(Interpolate(points, 6) == Approx(2));
  CHECK(Interpolate(points, 9) == Approx(3 * 9.0 / 8));
  CHECK(Interpolate({}, 3) == 0);
  const std::vector<std::pair<double, double>> slower = {{2, -1}};
  CHECK(Interpolate(slower, 1) == 0);
}

TEST_CASE("what timing decided is found again, by ratio and modules") {
  TwoLayers layers;
  const ModuleOptions& second = layers.options[1];
  const LatencyDecision decision{{{second.prunable, second.options[1].kept}}, 0.31234, 0.2};
  Context context;
  context.decisions["prune"] = "not ours";
  Record(decision, layers.options, 0.3, context);
  Record({}, layers.options, 0.2, context);
  CHECK(context.decisions["prune"]["latency"][0] == nlohmann::json::parse(R"json(
      {"ratio": 0.3, "keep": [["8 neurons before node \"middle\" (MatMul)", 8],
                              ["8 neurons before node \"last\" (MatMul)", 4]],
       "saved": 0.312, "saved_of_model": 0.2})json"));
  // As it is read from a file.
  context.decisions = nlohmann::json::parse(context.decisions.dump());
  const auto found = RecordedDecision(layers.options, 0.3, context);
  REQUIRE(found);
  CHECK(layers.Counts(found->choices) == Counts{8, 4});
  CHECK(found->choices[0].kept == second.options[1].kept);
  CHECK(found->saved == 0.312);
  REQUIRE(RecordedDecision(layers.options, 0.2, context));
  CHECK(RecordedDecision(layers.options, 0.2, context)->choices.empty());
  CHECK_FALSE(RecordedDecision(layers.options, 0.25, context));
  // Another set of modules, other counts.
  CHECK_FALSE(RecordedDecision({second}, 0.3, context));
  layers.options[1].options.erase(layers.options[1].options.begin() + 1);
  CHECK_FALSE(RecordedDecision(layers.options, 0.3, context));
}

TEST_CASE("decisions that are none are passed over") {
  TwoLayers layers;
  for (const char* text :
       {"{}", R"({"prune": 3})", R"({"prune": {"latency": {}}})", R"({"prune": {"latency": [3]}})",
        R"({"prune": {"latency": [{"ratio": 0.3}]}})",
        R"({"prune": {"latency": [{"ratio": 0.3, "keep": []}]}})",
        R"({"prune": {"latency": [{"ratio": 0.3, "keep": [1, ["8 neurons"], {}]}]}})",
        R"json({"prune": {"latency": [{"ratio": 0.3, "keep": [
            ["8 neurons before node \"middle\" (MatMul)", "6"],
            ["8 neurons before node \"last\" (MatMul)", 8]]}]}})json"}) {
    INFO(text);
    Context context;
    context.decisions = nlohmann::json::parse(text);
    CHECK_FALSE(RecordedDecision(layers.options, 0.3, context));
  }
}

}  // namespace
}  // namespace sparsefuse

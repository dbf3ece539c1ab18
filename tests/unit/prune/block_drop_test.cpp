// Which blocks may go as a whole, what goes with them, and what stands in their place.

#include "passes/prune/block_drop.h"

#include <Eigen/Core>
#include <algorithm>

#include "passes/sensitivity/consumer_refit.h"
#include "tests/support/catch.h"
#include "tests/unit/analysis/families.h"
#include "tests/unit/analysis/graphs.h"
#include "tests/unit/prune/removing.h"

namespace sparsefuse {
namespace {

using test::ParseGraph;
using test::RandomFeeds;

// y = x + f(x) with `end` between f's last product and the sum.
Model FeedForward(const std::string& end) {
  return ParseGraph(R"(
<ir_version: 10, opset_import: ["" : 21]>
agraph (float[B,3,4] x) => (float[B,3,4] y)
<float[4,6] w1 = ?, float[6,4] w2 = ?, float[4] b = ?, float[4] scale = ?, float[3,1] places = ?,
 int64[2] flat = {-1, 6}, int64[3] back = {-1, 3, 4}>
{
  [up] h = MatMul (x, w1)
  r = Relu (h)
)" + end + R"(
  y = Add (f, x)
}
)");
}

std::vector<Prunable> Settled(const Structure& structure, const Context& context,
                              std::vector<KeptBlock>& kept) {
  std::vector<Prunable> modules = FindPrunable(structure);
  kept = FindDroppable(structure, context, modules);
  return modules;
}

// `model` with the module's consumer giving `bias` whatever comes in.
Model Constant(const Model& model, const Prunable& prunable, double bias) {
  Model masked = model.Clone();
  const MatrixView& matrix = prunable.consumers[0].matrix;
  SetRefit(masked, prunable, 0,
           {Eigen::MatrixXd::Zero(matrix.inputs, matrix.outputs),
            bias * Eigen::VectorXd::LinSpaced(matrix.outputs, 1, 2)});
  return masked;
}

Tensor Branch(const Model& masked, const Block& block, const Feeds& feeds) {
  const std::string name = block.add->input(1 - block.kept_input)->name();
  return Session(WithOutputs(masked, {&name, 1}), {}).Run(feeds, {&name, 1})[0];
}

TEST_CASE("the one axis along which elements vary, as a tensor that broadcasts") {
  const auto row = [](Dims dims, std::vector<float> values) {
    return Row(Tensor::Of<float>(std::move(dims), values));
  };
  const std::optional<Tensor> last = row({2, 2, 3}, {1, 2, 3, 1, 2, 3, 1, 2, 3, 1, 2, 3});
  REQUIRE(last);
  CHECK(last->dims() == Dims{3});
  CHECK(last->ToFloats() == std::vector<float>{1, 2, 3});
  const std::optional<Tensor> channels = row({2, 2, 1, 2}, {5, 5, 7, 7, 5, 5, 7, 7});
  REQUIRE(channels);
  CHECK(channels->dims() == Dims{2, 1, 1});
  CHECK(channels->ToFloats() == std::vector<float>{5, 7});
  const std::optional<Tensor> same = row({2, 2}, {4, 4, 4, 4});
  REQUIRE(same);
  CHECK(same->dims() == Dims{});
  CHECK(same->ToFloats() == std::vector<float>{4});
  CHECK_FALSE(row({2, 2}, {1, 2, 1, 3}));
  CHECK_FALSE(row({2, 2}, {1, 2, 3, 4}));
}

TEST_CASE("a block that goes leaves the constant that its f gives") {
  for (const char* end :
       {"[down] f = MatMul (r, w2)", "[down] m = MatMul (r, w2)\n f = Add (m, b)",
        "[down] m = MatMul (r, w2)\n l = Mul (scale, m)\n f = Identity (l)",
        "rr = Reshape (r, flat)\n [down] m = Gemm (rr, w2, b)\n f = Reshape (m, back)"}) {
    INFO(end);
    const Model model = FeedForward(end);
    const Structure structure = FindStructure(model);
    std::vector<KeptBlock> kept;
    const std::vector<Prunable> modules = Settled(structure, {}, kept);
    CHECK(kept.empty());
    const auto owner =
        std::find_if(modules.begin(), modules.end(), [](const Prunable& p) { return p.block; });
    REQUIRE(owner != modules.end());
    CHECK(owner->block == &structure.blocks.at(0));
    const Feeds feeds = RandomFeeds(model, 1);
    for (const double bias : {0.0, 0.7}) {
      const Model masked = Constant(model, *owner, bias);
      Model removed = masked.Clone();
      const Structure found = FindStructure(masked);
      REQUIRE(DropBlock(removed, found.blocks.at(0), Branch(masked, found.blocks[0], feeds)));
      Verify(removed);
      CHECK(RemovalError(model, masked, feeds, {}) > 1e-3);
      CHECK(RemovalError(masked, removed, feeds, {}) <= 1e-6);
      CHECK(removed.graph().Nodes().size() == 1);
      CHECK(removed.graph().Nodes()[0]->op() == (bias == 0 ? "Identity" : "Add"));
    }
  }
}

TEST_CASE("an f that is not constant stays") {
  const Model model = FeedForward("[down] m = MatMul (r, w2)\n f = Mul (m, places)");
  const Structure structure = FindStructure(model);
  std::vector<KeptBlock> kept;
  const std::vector<Prunable> modules = Settled(structure, {}, kept);
  REQUIRE(modules.at(0).block);
  const Model masked = Constant(model, modules[0], 0.7);
  Model removed = masked.Clone();
  CHECK_FALSE(DropBlock(removed, *modules[0].block,
                        Branch(masked, *modules[0].block, RandomFeeds(model, 1))));
  CHECK(removed.graph().Nodes().size() == masked.graph().Nodes().size());
}

TEST_CASE("blocks that stay, with the reason") {
  const auto reason = [](const Model& model, const Context& context) {
    const Structure structure = FindStructure(model);
    std::vector<KeptBlock> kept;
    const std::vector<Prunable> modules = Settled(structure, context, kept);
    for (const Prunable& prunable : modules) CHECK_FALSE(prunable.block);
    REQUIRE(kept.size() == 1);
    CHECK(kept[0].block == &structure.blocks.at(0));
    return kept[0].reason;
  };
  CHECK(reason(FeedForward("[down] m = MatMul (r, w2)\n[act] f = Tanh (m)"), {}) ==
        "node \"act\" (Tanh) stands between its last product and the sum");
  CHECK(reason(ParseGraph(R"(
<ir_version: 10, opset_import: ["" : 21]>
agraph (float[B,4] x) => (float[B,4] y, float[B,2] z)
<float[4,6] w1 = ?, float[6,4] w2 = ?, float[6,2] w3 = ?>
{
  h = MatMul (x, w1)
  r = Relu (h)
  f = MatMul (r, w2)
  y = Add (f, x)
  z = MatMul (r, w3)
}
)"),
               {}) == "its 6 neurons are summed over in 2 places");
  CHECK(reason(ParseGraph(R"(
<ir_version: 10, opset_import: ["" : 21]>
agraph (float[B,4] x) => (float[B,4] y)
<float[4,4] w = ?>
{
  f = MatMul (x, w)
  y = Add (f, x)
}
)"),
               {}) == "its last product sums over nothing that can go");
}

TEST_CASE("a block holds what the configuration excludes") {
  Context context;
  context.exclude_nodes = NodePatterns({"up"});
  const Model model = FeedForward("[down] f = MatMul (r, w2)");
  const Structure structure = FindStructure(model);
  std::vector<KeptBlock> kept;
  CHECK_FALSE(Settled(structure, context, kept).at(0).block);
  REQUIRE(kept.size() == 1);
  CHECK(kept[0].reason == "node \"up\" (MatMul) in it is excluded by the configuration");
}

TEST_CASE("each block of each family belongs to one module, and takes along what only it reads") {
  size_t blocks = 0, along = 0;
  for (const test::Family& family : test::Families()) {
    INFO(family.name);
    const Model model = ParseGraph(family.text);
    const Structure structure = FindStructure(model);
    std::vector<KeptBlock> kept;
    const std::vector<Prunable> modules = Settled(structure, {}, kept);
    std::vector<Choice> all;
    for (const Prunable& prunable : modules) all.push_back({&prunable, {0}});
    for (const Prunable& prunable : modules) {
      if (!prunable.block) continue;
      ++blocks;
      const std::vector<Choice> dropped = {{&prunable, {}}};
      CHECK(GoneBlock(dropped[0]) == prunable.block);
      CHECK_FALSE(GoesWithBlock(*prunable.module, dropped));
      std::vector<Choice> choices = all;
      for (Choice& choice : choices) {
        if (choice.prunable == &prunable) choice.kept.clear();
      }
      EraseInside(choices);
      for (const Prunable& other : modules) {
        const bool stays = std::any_of(choices.begin(), choices.end(),
                                       [&](const Choice& c) { return c.prunable == &other; });
        CHECK(stays != GoesWithBlock(*other.module, dropped));
        along += stays ? 0 : 1;
      }
    }
    CHECK(std::count_if(modules.begin(), modules.end(), [](const Prunable& p) { return p.block; }) +
              kept.size() ==
          structure.blocks.size());
  }
  CHECK(blocks >= 7);
  CHECK(along >= 6);
}

}  // namespace
}  // namespace sparsefuse

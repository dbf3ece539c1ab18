// What is found in small graphs of each family.

#include "passes/analysis/structure.h"

#include <algorithm>

#include "tests/support/catch.h"
#include "tests/unit/analysis/families.h"
#include "tests/unit/analysis/graphs.h"

namespace sparsefuse {
namespace {

using test::FamilyModel;
using test::Frozen;
using test::LeftAlone;
using test::Lines;
using test::ParseGraph;
using Strings = std::vector<std::string>;

bool Has(const Strings& lines, const std::string& line) {
  return std::find(lines.begin(), lines.end(), line) != lines.end();
}

TEST_CASE("BERT: separate queries, keys, values, -1 in shapes, post-norm blocks") {
  const Model model = FamilyModel("BERT");
  const Structure structure = FindStructure(model);
  CHECK(Lines(structure) ==
        Strings{"3 attention heads: wq.1 bq.0 wk.1 wv.1 wo.0 | Reshape[2] Reshape[2] Reshape[2]",
                "20 neurons: w1.1 b1.0 w2.0", "block attention: keeps x",
                "block feed-forward: keeps n"});
  CHECK(LeftAlone(structure) ==
        Strings{"4 query-key width: wq.1 bq.0 wk.1 - the width of all heads together is for "
                "factorize",
                "4 value width: wv.1 wo.0 - the width of all heads together is for factorize"});
  CHECK(Frozen(structure) == Strings{"12 in 7: axis of a graph input"});
  // Head 1 is columns 4 … 7 of the queries.
  const Module& heads = structure.modules[0];
  CHECK(heads.axes[0].unit_of == std::vector<int64_t>{0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2});
  CHECK(heads.sizes[0].unit_of == std::vector<int64_t>{0, 1, 2});
  CHECK(heads.parameters_per_unit == 4 * 12 * 4 + 4);
}

TEST_CASE("GPT-2: packed queries, keys, values, split at constants, dynamo's three reshapes") {
  const Model model = FamilyModel("GPT-2");
  const Structure structure = FindStructure(model);
  CHECK(Lines(structure) == Strings{"3 attention heads: w.1 b.0 wo.0 | Split[0] Split[1] Split[2] "
                                    "Reshape[2] Reshape[2] Reshape[2] Reshape[2]",
                                    "block attention: keeps x"});
  const std::vector<int64_t>& columns = structure.modules.at(0).axes.at(0).unit_of;
  REQUIRE(columns.size() == 36);
  CHECK(columns[4] == 1);       // queries
  CHECK(columns[12 + 3] == 0);  // keys
  CHECK(columns[24 + 8] == 2);  // values
}

TEST_CASE("timm: one reshape to [B, N, 3, heads, width], then indices of the axis of three") {
  for (const char* family : {"timm, Gather", "timm, Slice"}) {
    const Model model = FamilyModel(family);
    const Structure structure = FindStructure(model);
    CHECK(Lines(structure) == Strings{"3 attention heads: w.1 b.0 wo.0 | Reshape[3] Reshape[2]",
                                      "block attention: keeps x"});
    CHECK(structure.modules.at(0).axes.at(0).unit_of[12 + 4] == 1);
  }
}

TEST_CASE("Llama: key-value groups, query heads in them, pairs of RoPE, gated neurons") {
  const Model model = FamilyModel("Llama");
  const Structure structure = FindStructure(model);
  CHECK(Lines(structure) ==
        Strings{"2 key-value groups: wq.1 wk.1 wv.1 wo.0 | Reshape[2] Reshape[2] Reshape[2] "
                "Reshape[1] Reshape[1] Reshape[2]",
                "2 query heads per group: wq.1 wo.0 | Reshape[2] Expand[2] Reshape[1] Expand[2] "
                "Reshape[1] Reshape[2]",
                "20 neurons: wg.1 wu.1 wd.0", "block attention: keeps x",
                "block feed-forward: keeps h"});
}

TEST_CASE("packed gate and up: a neuron is a column of either half") {
  const Model model = FamilyModel("packed gate and up, Split");
  const Structure structure = FindStructure(model);
  CHECK(Lines(structure) == Strings{"5 neurons: w.1 wd.0 | Split[0] Split[1]"});
  CHECK(structure.modules.at(0).axes.at(0).unit_of ==
        std::vector<int64_t>{0, 1, 2, 3, 4, 0, 1, 2, 3, 4});
}

TEST_CASE("packed gate and up, taken by slices from either end") {
  const Model model = FamilyModel("packed gate and up, Slice");
  const Structure structure = FindStructure(model);
  CHECK(Lines(structure) == Strings{"5 neurons: w.1 wd.0 | Slice[0] Slice[0]"});
  CHECK_FALSE(structure.modules.at(0).sizes[0].use.from_end);
  CHECK(structure.modules.at(0).sizes[1].use.from_end);
}

TEST_CASE("ResNet: inner channels are free, the stage's channels are left alone, a block can go") {
  const Model model = FamilyModel("ResNet");
  const Structure structure = FindStructure(model);
  CHECK(Lines(structure) ==
        Strings{"5 channels: w1.0 s1.0 b1.0 m1.0 v1.0 w2.1", "block convolution: keeps r0"});
  CHECK(LeftAlone(structure) ==
        Strings{"4 channels: w0.0 w1.1 w2.0 wf.1 - part of a residual stream: removing one touches "
                "every layer on it"});
  CHECK(structure.blocks.at(0).removed.size() == 4);
  CHECK(structure.blocks.at(0).parameters == 5 * 4 * 9 + 4 * 5 + 4 * 5 * 9);
  CHECK(Has(Frozen(structure), "10 in 1: axis of a graph output"));
  CHECK(Has(Frozen(structure), "3 in 1: axis of a graph input"));
}

TEST_CASE("depthwise: one channel runs through, and the group count follows") {
  const Model model = FamilyModel("depthwise");
  CHECK(Lines(FindStructure(model)) == Strings{"6 channels: w0.0 wd.0 bd.0 w1.1 | Conv group"});
}

TEST_CASE("grouped convolution: whole groups, and the same channel of every group") {
  const Model model = FamilyModel("grouped");
  const Structure structure = FindStructure(model);
  CHECK(Lines(structure) == Strings{"2 channel groups: w0.0 wg.0 w1.1 | Conv group",
                                    "3 channels: w0.0 wg.1", "2 channels: wg.0 w1.1"});
  CHECK(structure.modules.at(1).axes.at(0).unit_of == std::vector<int64_t>{0, 1, 2, 0, 1, 2});
}

TEST_CASE("Flatten to Gemm, batch fixed at 1: a channel is a run of columns") {
  const Model model = FamilyModel("Flatten to Gemm");
  const Structure structure = FindStructure(model);
  CHECK(Lines(structure) == Strings{"5 channels: w.0 wf.0 | Reshape[1]"});
  CHECK(structure.modules.at(0).axes[1].unit_of ==
        std::vector<int64_t>{0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4});
}

TEST_CASE("tied embedding: neither tokens nor the stream can shrink, neurons can") {
  const Model model = FamilyModel("tied embedding");
  const Structure structure = FindStructure(model);
  CHECK(Lines(structure) == Strings{"8 neurons: w1.1 w2.0", "block feed-forward: keeps x"});
  CHECK(Frozen(structure) ==
        Strings{"6 in 4: normalised by LayerNormalization", "9 in 1: looked up by index"});
}

TEST_CASE("a table that is not tied, never normalised: its width is free") {
  const Model model = FamilyModel("free embedding");
  CHECK(Lines(FindStructure(model)) == Strings{"6 neurons: table.1 w.0"});
}

TEST_CASE("contrib fused Attention, taken apart: exactly its heads") {
  const Strings heads = {
      "3 attention heads: w.1 b.0 wo.0 | Split[0] Split[1] Split[2] Reshape[2] Reshape[2] "
      "Reshape[2] Reshape[2]",
      "block attention: keeps x"};
  const Model causal = FamilyModel("fused causal attention");
  const Structure structure = FindStructure(causal);
  CHECK(Lines(structure) == heads);
  // Queries and keys are 4 wide, values 6.
  const std::vector<int64_t>& columns = structure.modules.at(0).axes.at(0).unit_of;
  REQUIRE(columns.size() == 42);
  CHECK(columns[4] == 1);           // queries
  CHECK(columns[12 + 11] == 2);     // keys
  CHECK(columns[24 + 6 + 5] == 1);  // values

  const Model bert = FamilyModel("fused BERT layer");
  CHECK(Lines(FindStructure(bert)) ==
        Strings{"3 attention heads: w.1 bw.0 wo.0 | Split[0] Split[1] Split[2] Reshape[2] "
                "Reshape[2] Reshape[2] Reshape[2]",
                "20 neurons: w1.1 b1.0 w2.0", "block attention: keeps x",
                "block feed-forward: keeps n"});
}

TEST_CASE("other fused attention, taken apart: heads, groups, query heads in them") {
  const Model multi = FamilyModel("fused attention with rotation");
  CHECK(Lines(FindStructure(multi)) ==
        Strings{"3 attention heads: wq.1 wk.1 wv.1 b.0 bias.1 wo.0 | Reshape[2] Reshape[2] "
                "Reshape[2] Reshape[2] Split[0] Split[1] Split[2] Reshape[2] Reshape[2] "
                "Reshape[2] Reshape[2]",
                "block attention: keeps x"});
  for (const char* family : {"fused grouped attention", "ONNX's Attention"}) {
    const Model grouped = FamilyModel(family);
    CHECK(Lines(FindStructure(grouped)) ==
          Strings{"2 key-value groups: wq.1 wk.1 wv.1 wo.0 | Reshape[2] Reshape[2] Reshape[2] "
                  "Reshape[1] Reshape[1] Reshape[2]",
                  "2 query heads per group: wq.1 wo.0 | Reshape[2] Expand[2] Reshape[1] Expand[2] "
                  "Reshape[1] Reshape[2]",
                  "block attention: keeps x"});
  }
}

TEST_CASE("fused attention, recurrent layers, loops and unknown operators freeze what they touch") {
  const Model fused = ParseGraph(R"(
<ir_version: 8, opset_import: ["" : 17, "com.microsoft" : 1]>
agraph (float[B,S,12] x) => (float[B,S,12] y)
<float[12,36] w = ?, float[36] b = ?, float[12,12] wo = ?>
{
  a = com.microsoft.Attention <num_heads = 3> (x, w, b)
  y = MatMul (a, wo)
}
)");
  const Structure structure = FindStructure(fused);
  CHECK(Lines(structure).empty());
  CHECK(Has(Frozen(structure),
            "36 in 2: inside the fused com.microsoft.Attention: run decompose first"));

  const Model kept = ParseGraph(R"(
<ir_version: 8, opset_import: ["" : 17, "com.microsoft" : 1]>
agraph (float[B,S,12] x) => (float[B,S,12] y)
<float[12,36] w = ?, float[12,12] wo = ?>
{
  a = com.microsoft.Attention <num_heads = 3> (x, w)
  y = MatMul (a, wo)
}
)");
  CHECK(Has(Frozen(FindStructure(kept)),
            "36 in 1: inside the fused com.microsoft.Attention: it has no bias, a form that ONNX "
            "Runtime does not run"));

  const Model unknown = ParseGraph(R"(
<ir_version: 8, opset_import: ["" : 17]>
agraph (float[B,6] x) => (float[B,3] y)
<float[6,4] w1 = ?, float[4,3] w2 = ?>
{
  h = MatMul (x, w1)
  d = LpNormalization (h)
  y = MatMul (d, w2)
}
)");
  CHECK(Lines(FindStructure(unknown)).empty());
  CHECK(Has(Frozen(FindStructure(unknown)), "4 in 2: no axis rule for LpNormalization"));

  const Model branch = ParseGraph(R"(
<ir_version: 8, opset_import: ["" : 17]>
agraph (bool b, float[N,6] x) => (float[N,3] y)
<float[6,4] w1 = ?, float[4,3] w2 = ?>
{
  h = MatMul (x, w1)
  r = If (b) <then_branch = t () => (float[N,4] tt) { tt = Abs (h) },
              else_branch = e () => (float[N,4] ee) { ee = Neg (h) }>
  y = MatMul (r, w2)
}
)");
  CHECK(Lines(FindStructure(branch)).empty());
  CHECK(Has(Frozen(FindStructure(branch)), "4 in 2: crosses the boundary of If"));
}

TEST_CASE("an attention's batch product without Softmax is no attention") {
  const Model model = ParseGraph(R"(
<ir_version: 8, opset_import: ["" : 17]>
agraph (float[S,12] x) => (float[S,12] y)
<float[12,12] wa = ?, float[12,12] wb = ?, float[12,12] wo = ?, int64[3] heads = {-1, 3, 4},
 int64[2] merged = {-1, 12}>
{
  a = MatMul (x, wa)
  b = MatMul (x, wb)
  a3 = Reshape (a, heads)
  b3 = Reshape (b, heads)
  at = Transpose <perm = [1, 2, 0]> (a3)
  bt = Transpose <perm = [1, 0, 2]> (b3)
  m = MatMul (at, bt)
  ah = Transpose <perm = [1, 0, 2]> (a3)
  c = MatMul (ah, m)
  ct = Transpose <perm = [1, 0, 2]> (c)
  c2 = Reshape (ct, merged)
  y = MatMul (c2, wo)
}
)");
  CHECK(Has(Frozen(FindStructure(model)),
            "3 in 3: runs along a product of two activations that is no attention"));
}

TEST_CASE("a size that enters the arithmetic freezes its axis") {
  const Model model = ParseGraph(R"(
<ir_version: 8, opset_import: ["" : 17]>
agraph (float[B,6] x) => (float[B,3] y)
<float[6,4] w1 = ?, float[4,3] w2 = ?, int64 one = {1}>
{
  h = MatMul (x, w1)
  shape = Shape (h)
  width = Gather (shape, one)
  real = Cast <to = 1> (width)
  root = Sqrt (real)
  d = Div (h, root)
  y = MatMul (d, w2)
}
)");
  CHECK(Frozen(FindStructure(model)) == Strings{"4 in 2: its size is used as a number",
                                                "6 in 1: axis of a graph input",
                                                "3 in 1: axis of a graph output"});
}

TEST_CASE("a computed size that is written anew freezes what else it was computed from") {
  // The width is computed from the size of what the heads are in: with fewer heads it would shrink.
  const Model model = ParseGraph(R"(
<ir_version: 8, opset_import: ["" : 17]>
agraph (float[2,5] x) => (float[2,3] y)
<float[5,12] w = ?, float[12,3] v = ?, int64[1] two = {2}, int64[1] three = {3}, int64[2] flat = {2, -1}>
{
  a = MatMul (x, w)
  all = Shape <start = 1, end = 2> (a)
  width = Div (all, three)
  shape = Concat <axis = 0> (two, three, width)
  a3 = Reshape (a, shape)
  r = Relu (a3)
  a2 = Reshape (r, flat)
  y = MatMul (a2, v)
}
)");
  CHECK(Lines(FindStructure(model)) == Strings{"4 neurons: w.1 v.0 | Reshape[2]"});
  CHECK(Has(Frozen(FindStructure(model)), "3 in 2: its size is used as a number"));
}

TEST_CASE("reads: operands in which units are switched off") {
  const Model model = FamilyModel("BERT");
  const Structure structure = FindStructure(model);
  const Module& heads = structure.modules.at(0);
  REQUIRE(heads.reads.size() == 1);
  CHECK(heads.reads[0].node == model.graph().FindValue("o")->producer());
  CHECK(heads.reads[0].input == 0);
  CHECK(heads.reads[0].axis == 2);
  CHECK(heads.reads[0].rank == 3);
  CHECK(heads.reads[0].unit_of == std::vector<int64_t>{0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2});
  for (const Module& module : structure.modules) {
    if (module.kind != ModuleKind::kHeadWidthQk) continue;
    // Of queries and keys one is enough.
    REQUIRE(module.reads.size() == 1);
    CHECK(module.reads[0].node == model.graph().FindValue("s")->producer());
    CHECK(module.reads[0].unit_of == std::vector<int64_t>{0, 1, 2, 3});
  }
}

}  // namespace
}  // namespace sparsefuse

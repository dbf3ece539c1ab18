// What is found in small graphs of each family.

#include "passes/analysis/structure.h"

#include <algorithm>

#include "tests/support/catch.h"
#include "tests/unit/analysis/graphs.h"

namespace sparsefuse {
namespace {

using test::Frozen;
using test::LeftAlone;
using test::Lines;
using test::ParseGraph;
using Strings = std::vector<std::string>;

bool Has(const Strings& lines, const std::string& line) {
  return std::find(lines.begin(), lines.end(), line) != lines.end();
}

TEST_CASE("BERT: separate queries, keys, values; -1 in shapes; post-norm blocks") {
  const Model model = ParseGraph(R"(
<ir_version: 8, opset_import: ["" : 17]>
agraph (float[B,S,12] x) => (float[B,S,12] y)
<float[12,12] wq = ?, float[12] bq = ?, float[12,12] wk = ?, float[12,12] wv = ?,
 float[12,12] wo = ?, float[12] g = ?, float[12,20] w1 = ?, float[20] b1 = ?, float[20,12] w2 = ?,
 int64[4] heads = {0, 0, 3, -1}, int64[3] merged = {0, 0, -1}, float scale = {0.5}>
{
  q = MatMul (x, wq)
  qb = Add (bq, q)
  k = MatMul (x, wk)
  v = MatMul (x, wv)
  q4 = Reshape (qb, heads)
  k4 = Reshape (k, heads)
  v4 = Reshape (v, heads)
  qt = Transpose <perm = [0, 2, 1, 3]> (q4)
  kt = Transpose <perm = [0, 2, 3, 1]> (k4)
  vt = Transpose <perm = [0, 2, 1, 3]> (v4)
  s = MatMul (qt, kt)
  ss = Mul (s, scale)
  p = Softmax <axis = -1> (ss)
  c = MatMul (p, vt)
  ct = Transpose <perm = [0, 2, 1, 3]> (c)
  c3 = Reshape (ct, merged)
  o = MatMul (c3, wo)
  r = Add (o, x)
  n = LayerNormalization <axis = -1> (r, g)
  h = MatMul (n, w1)
  hb = Add (h, b1)
  ge = Erf (hb)
  f = MatMul (ge, w2)
  y = Add (f, n)
}
)");
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

TEST_CASE("GPT-2: packed queries, keys, values, split at constants; dynamo's three reshapes") {
  const Model model = ParseGraph(R"(
<ir_version: 8, opset_import: ["" : 18]>
agraph (float[2,S,12] x) => (float[2,S,12] y)
<float[12] g = ?, float[12,36] w = ?, float[36] b = ?, float[12,12] wo = ?,
 int64[3] thirds = {12, 12, 12}, int64[4] heads = {2, -1, 3, 4}, int64[3] merged = {2, -1, 12},
 int64[1] three = {3}, int64[1] four = {4}, int64[1] minus = {-1}>
{
  n = LayerNormalization <axis = -1> (x, g)
  m = MatMul (n, w)
  qkv = Add (m, b)
  q, k, v = Split <axis = 2> (qkv, thirds)
  q4 = Reshape (q, heads)
  k4 = Reshape (k, heads)
  v4 = Reshape (v, heads)
  qt = Transpose <perm = [0, 2, 1, 3]> (q4)
  kh = Transpose <perm = [0, 2, 1, 3]> (k4)
  vt = Transpose <perm = [0, 2, 1, 3]> (v4)
  ks = Shape (kh)
  rows = Shape <start = 2, end = 3> (kh)
  flat = Concat <axis = 0> (minus, rows, four)
  k3 = Reshape (kh, flat)
  k3t = Transpose <perm = [0, 2, 1]> (k3)
  front = Shape <start = 0, end = 2> (kh)
  back = Concat <axis = 0> (front, four, rows)
  kt = Reshape (k3t, back)
  s = MatMul (qt, kt)
  p = Softmax <axis = -1> (s)
  c = MatMul (p, vt)
  ct = Transpose <perm = [0, 2, 1, 3]> (c)
  c3 = Reshape (ct, merged)
  o = MatMul (c3, wo)
  y = Add (x, o)
}
)");
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
  const char* start = R"(
<ir_version: 8, opset_import: ["" : 17]>
agraph (float[B,5,12] x) => (float[B,5,12] y)
<float[12] g = ?, float[12,36] w = ?, float[36] b = ?, float[12,12] wo = ?,
 int64[5] five = {-1, 5, 3, 3, 4}, int64[3] merged = {-1, 5, 12}, int64 i0 = {0}, int64 i1 = {1},
 int64 i2 = {2}, int64[1] v0 = {0}, int64[1] v1 = {1}, int64[1] v2 = {2}, int64[1] v3 = {3}>
{
  n = LayerNormalization <axis = -1> (x, g)
  m = MatMul (n, w)
  qkv = Add (m, b)
  r = Reshape (qkv, five)
  t = Transpose <perm = [2, 0, 3, 1, 4]> (r)
)";
  const char* gather = R"(
  q = Gather <axis = 0> (t, i0)
  k = Gather <axis = 0> (t, i1)
  v = Gather <axis = 0> (t, i2)
)";
  const char* slice = R"(
  qs = Slice (t, v0, v1, v0)
  q = Squeeze (qs, v0)
  ks = Slice (t, v1, v2, v0)
  k = Squeeze (ks, v0)
  vs = Slice (t, v2, v3, v0)
  v = Squeeze (vs, v0)
)";
  const char* rest = R"(
  kt = Transpose <perm = [0, 1, 3, 2]> (k)
  s = MatMul (q, kt)
  p = Softmax <axis = -1> (s)
  c = MatMul (p, v)
  ct = Transpose <perm = [0, 2, 1, 3]> (c)
  c3 = Reshape (ct, merged)
  o = MatMul (c3, wo)
  y = Add (x, o)
}
)";
  for (const char* middle : {gather, slice}) {
    const Model model = ParseGraph(std::string(start) + middle + rest);
    const Structure structure = FindStructure(model);
    CHECK(Lines(structure) == Strings{"3 attention heads: w.1 b.0 wo.0 | Reshape[3] Reshape[2]",
                                      "block attention: keeps x"});
    CHECK(structure.modules.at(0).axes.at(0).unit_of[12 + 4] == 1);
  }
}

// Rotation of halves, four query heads for two key-value heads, gated feed-forward.
const char kLlama[] = R"(
<ir_version: 8, opset_import: ["" : 18]>
agraph (float[B,S,16] x) => (float[B,S,16] y)
<float[16] g = ?, float[16,16] wq = ?, float[16,8] wk = ?, float[16,8] wv = ?, float[16,16] wo = ?,
 float[64,4] cos = ?, float[64,4] sin = ?, int64[4] qh = {0, 0, 4, 4}, int64[4] kh = {0, 0, 2, 4},
 int64[5] grow = {1, 1, 2, 1, 1}, int64[4] all = {0, 4, -1, 4}, int64[3] merged = {0, 0, 16},
 int64[1] zero = {0}, int64[1] half = {2}, int64[1] most = {9223372036854775807},
 int64[1] last = {3}, int64[1] two = {2}, int64 one = {1}, float[16,20] wg = ?,
 float[16,20] wu = ?, float[20,16] wd = ?, int64[1] seven = {7}>
{
  n = RMSNormalization <axis = -1> (x, g)
  q = MatMul (n, wq)
  k = MatMul (n, wk)
  v = MatMul (n, wv)
  q4 = Reshape (q, qh)
  k4 = Reshape (k, kh)
  v4 = Reshape (v, kh)
  qt = Transpose <perm = [0, 2, 1, 3]> (q4)
  kt = Transpose <perm = [0, 2, 1, 3]> (k4)
  vt = Transpose <perm = [0, 2, 1, 3]> (v4)
  shape = Shape <start = 1, end = 2> (x)
  c = Slice (cos, zero, shape, zero)
  s = Slice (sin, zero, shape, zero)
  q1 = Slice (qt, zero, half, last)
  q2 = Slice (qt, half, most, last)
  q2n = Neg (q2)
  qr = Concat <axis = -1> (q2n, q1)
  qc = Mul (qt, c)
  qs = Mul (qr, s)
  qe = Add (qc, qs)
  k1 = Slice (kt, zero, half, last)
  k2 = Slice (kt, half, most, last)
  k2n = Neg (k2)
  kr = Concat <axis = -1> (k2n, k1)
  kc = Mul (kt, c)
  ks = Mul (kr, s)
  ke = Add (kc, ks)
  ku = Unsqueeze (ke, two)
  kx = Expand (ku, grow)
  ka = Reshape (kx, all)
  vu = Unsqueeze (vt, two)
  vx = Expand (vu, grow)
  va = Reshape (vx, all)
  kat = Transpose <perm = [0, 1, 3, 2]> (ka)
  score = MatMul (qe, kat)
  p = Softmax <axis = -1> (score)
  a = MatMul (p, va)
  at = Transpose <perm = [0, 2, 1, 3]> (a)
  a3 = Reshape (at, merged)
  o = MatMul (a3, wo)
  h = Add (x, o)
  hn = RMSNormalization <axis = -1> (h, g)
  gate = MatMul (hn, wg)
  sig = Sigmoid (gate)
  silu = Mul (gate, sig)
  up = MatMul (hn, wu)
  act = Mul (silu, up)
  down = MatMul (act, wd)
  y = Add (h, down)
}
)";

TEST_CASE("Llama: key-value groups, query heads in them, pairs of RoPE, gated neurons") {
  const Model model = ParseGraph(kLlama);
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
  const Model model = ParseGraph(R"(
<ir_version: 8, opset_import: ["" : 18]>
agraph (float[B,6] x) => (float[B,6] y)
<float[6,10] w = ?, float[5,6] wd = ?, int64[2] sizes = {5, 5}>
{
  both = MatMul (x, w)
  gate, up = Split <axis = 1> (both, sizes)
  sig = Sigmoid (gate)
  act = Mul (sig, up)
  y = MatMul (act, wd)
}
)");
  const Structure structure = FindStructure(model);
  CHECK(Lines(structure) == Strings{"5 neurons: w.1 wd.0 | Split[0] Split[1]"});
  CHECK(structure.modules.at(0).axes.at(0).unit_of ==
        std::vector<int64_t>{0, 1, 2, 3, 4, 0, 1, 2, 3, 4});
}

TEST_CASE("packed gate and up, taken by slices from either end") {
  const Model model = ParseGraph(R"(
<ir_version: 8, opset_import: ["" : 18]>
agraph (float[B,6] x) => (float[B,6] y)
<float[6,10] w = ?, float[5,6] wd = ?, int64[1] zero = {0}, int64[1] five = {5},
 int64[1] back = {-5}, int64[1] most = {9223372036854775807}, int64[1] one = {1}>
{
  both = MatMul (x, w)
  gate = Slice (both, zero, five, one)
  up = Slice (both, back, most, one)
  act = Mul (gate, up)
  y = MatMul (act, wd)
}
)");
  const Structure structure = FindStructure(model);
  CHECK(Lines(structure) == Strings{"5 neurons: w.1 wd.0 | Slice[0] Slice[0]"});
  CHECK_FALSE(structure.modules.at(0).sizes[0].use.from_end);
  CHECK(structure.modules.at(0).sizes[1].use.from_end);
}

TEST_CASE("ResNet: inner channels are free, the stage's channels are left alone, a block can go") {
  const Model model = ParseGraph(R"(
<ir_version: 8, opset_import: ["" : 17]>
agraph (float[N,3,8,8] x) => (float[N,10] y)
<float[4,3,3,3] w0 = ?, float[5,4,3,3] w1 = ?, float[5] s1 = ?, float[5] b1 = ?, float[5] m1 = ?,
 float[5] v1 = ?, float[4,5,3,3] w2 = ?, float[10,4] wf = ?>
{
  c0 = Conv <pads = [1, 1, 1, 1]> (x, w0)
  r0 = Relu (c0)
  c1 = Conv <pads = [1, 1, 1, 1]> (r0, w1)
  n1 = BatchNormalization (c1, s1, b1, m1, v1)
  r1 = Relu (n1)
  c2 = Conv <pads = [1, 1, 1, 1]> (r1, w2)
  sum = Add (c2, r0)
  r2 = Relu (sum)
  pool = GlobalAveragePool (r2)
  flat = Flatten (pool)
  y = Gemm <transB = 1> (flat, wf)
}
)");
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
  const Model model = ParseGraph(R"(
<ir_version: 8, opset_import: ["" : 17]>
agraph (float[1,3,8,8] x) => (float[1,2,6,6] y)
<float[6,3,1,1] w0 = ?, float[6,1,3,3] wd = ?, float[6] bd = ?, float[2,6,1,1] w1 = ?>
{
  a = Conv (x, w0)
  b = Conv <group = 6> (a, wd, bd)
  c = Clip (b)
  y = Conv (c, w1)
}
)");
  CHECK(Lines(FindStructure(model)) == Strings{"6 channels: w0.0 wd.0 bd.0 w1.1 | Conv group"});
}

TEST_CASE("grouped convolution: whole groups, and the same channel of every group") {
  const Model model = ParseGraph(R"(
<ir_version: 8, opset_import: ["" : 17]>
agraph (float[1,3,8,8] x) => (float[1,2,6,6] y)
<float[6,3,1,1] w0 = ?, float[4,3,3,3] wg = ?, float[2,4,1,1] w1 = ?>
{
  a = Conv (x, w0)
  b = Conv <group = 2> (a, wg)
  y = Conv (b, w1)
}
)");
  const Structure structure = FindStructure(model);
  CHECK(Lines(structure) == Strings{"2 channel groups: w0.0 wg.0 w1.1 | Conv group",
                                    "3 channels: w0.0 wg.1", "2 channels: wg.0 w1.1"});
  CHECK(structure.modules.at(1).axes.at(0).unit_of == std::vector<int64_t>{0, 1, 2, 0, 1, 2});
}

TEST_CASE("Flatten to Gemm, batch fixed at 1: a channel is a run of columns") {
  const Model model = ParseGraph(R"(
<ir_version: 8, opset_import: ["" : 17]>
agraph (float[1,3,4,4] x) => (float[1,7] y)
<float[5,3,3,3] w = ?, float[20,7] wf = ?, int64[2] shape = {-1, 20}>
{
  c = Conv (x, w)
  f = Reshape (c, shape)
  y = Gemm (f, wf)
}
)");
  const Structure structure = FindStructure(model);
  CHECK(Lines(structure) == Strings{"5 channels: w.0 wf.0 | Reshape[1]"});
  CHECK(structure.modules.at(0).axes[1].unit_of ==
        std::vector<int64_t>{0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4});
}

TEST_CASE("tied embedding: neither tokens nor the stream can shrink, neurons can") {
  const Model model = ParseGraph(R"(
<ir_version: 8, opset_import: ["" : 18]>
agraph (int64[B,S] ids) => (float[B,S,9] logits)
<float[9,6] table = ?, float[6] g = ?, float[6,8] w1 = ?, float[8,6] w2 = ?>
{
  x = Gather (table, ids)
  n = LayerNormalization <axis = -1> (x, g)
  h = MatMul (n, w1)
  r = Relu (h)
  f = MatMul (r, w2)
  s = Add (x, f)
  m = LayerNormalization <axis = -1> (s, g)
  t = Transpose <perm = [1, 0]> (table)
  logits = MatMul (m, t)
}
)");
  const Structure structure = FindStructure(model);
  CHECK(Lines(structure) == Strings{"8 neurons: w1.1 w2.0", "block feed-forward: keeps x"});
  CHECK(Frozen(structure) ==
        Strings{"6 in 4: normalised by LayerNormalization", "9 in 1: looked up by index"});
}

TEST_CASE("a table that is not tied, never normalised: its width is free") {
  const Model model = ParseGraph(R"(
<ir_version: 8, opset_import: ["" : 18]>
agraph (int64[B] ids) => (float[B,3] y)
<float[9,6] table = ?, float[6,3] w = ?>
{
  x = Gather (table, ids)
  y = MatMul (x, w)
}
)");
  CHECK(Lines(FindStructure(model)) == Strings{"6 neurons: table.1 w.0"});
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
            "36 in 2: inside the fused com.microsoft.Attention, which is not taken apart"));

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

}  // namespace
}  // namespace sparsefuse

#include "tests/unit/analysis/families.h"

#include <algorithm>

#include "passes/framework/pass.h"
#include "tests/unit/analysis/graphs.h"

namespace sparsefuse::test {
namespace {

const char kBert[] = R"(
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
)";

const char kGpt2[] = R"(
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
)";

const char kTimmStart[] = R"(
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

const char kTimmGather[] = R"(
  q = Gather <axis = 0> (t, i0)
  k = Gather <axis = 0> (t, i1)
  v = Gather <axis = 0> (t, i2)
)";

const char kTimmSlice[] = R"(
  qs = Slice (t, v0, v1, v0)
  q = Squeeze (qs, v0)
  ks = Slice (t, v1, v2, v0)
  k = Squeeze (ks, v0)
  vs = Slice (t, v2, v3, v0)
  v = Squeeze (vs, v0)
)";

const char kTimmRest[] = R"(
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

// Rotation of halves, four query heads for two key-value heads, gated feed-forward.
const char kLlama[] = R"(
<ir_version: 10, opset_import: ["" : 23]>
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

const char kGateSplit[] = R"(
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
)";

const char kGateSlice[] = R"(
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
)";

const char kResNet[] = R"(
<ir_version: 8, opset_import: ["" : 17]>
agraph (float[N,3,8,8] x) => (float[N,10] y)
<float[4,3,3,3] w0 = ?, float[5,4,3,3] w1 = ?, float[5] s1 = ?, float[5] b1 = ?, float[5] m1 = ?,
 float[5] v1 = +, float[4,5,3,3] w2 = ?, float[10,4] wf = ?>
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
)";

const char kDepthwise[] = R"(
<ir_version: 8, opset_import: ["" : 17]>
agraph (float[1,3,8,8] x) => (float[1,2,6,6] y)
<float[6,3,1,1] w0 = ?, float[6,1,3,3] wd = ?, float[6] bd = ?, float[2,6,1,1] w1 = ?>
{
  a = Conv (x, w0)
  b = Conv <group = 6> (a, wd, bd)
  c = Clip (b)
  y = Conv (c, w1)
}
)";

const char kGrouped[] = R"(
<ir_version: 8, opset_import: ["" : 17]>
agraph (float[1,3,8,8] x) => (float[1,2,6,6] y)
<float[6,3,1,1] w0 = ?, float[4,3,3,3] wg = ?, float[2,4,1,1] w1 = ?>
{
  a = Conv (x, w0)
  b = Conv <group = 2> (a, wg)
  y = Conv (b, w1)
}
)";

const char kFlatten[] = R"(
<ir_version: 8, opset_import: ["" : 17]>
agraph (float[1,3,4,4] x) => (float[1,7] y)
<float[5,3,3,3] w = ?, float[20,7] wf = ?, int64[2] shape = {-1, 20}>
{
  c = Conv (x, w)
  f = Reshape (c, shape)
  y = Gemm (f, wf)
}
)";

const char kTied[] = R"(
<ir_version: 8, opset_import: ["" : 18]>
agraph (int64[B,S] ids) => (float[B,S,9] logits)
<float[9,6] table = ?, float[6] g = ?, float[6,8] w1 = ?, float[8,6] w2 = ?>
{
  x = Gather (table, ids)
  n = LayerNormalization <axis = -1> (x, g)
  h = MatMul (n, w1)
  r = Tanh (h)
  f = MatMul (r, w2)
  s = Add (x, f)
  m = LayerNormalization <axis = -1> (s, g)
  t = Transpose <perm = [1, 0]> (table)
  logits = MatMul (m, t)
}
)";

const char kFree[] = R"(
<ir_version: 8, opset_import: ["" : 18]>
agraph (int64[B] ids) => (float[B,3] y)
<float[9,6] table = ?, float[6,3] w = ?>
{
  x = Gather (table, ids)
  y = MatMul (x, w)
}
)";

const char kBertLayer[] = R"(
<ir_version: 8, opset_import: ["" : 17, "com.microsoft" : 1]>
agraph (int64[B,S] ids, int64[B,S] mask) => (float[B,S,12] y)
<float[9,12] words = ?, float[7,12] positions = ?, float[12] g = +, float[12] b = ?,
 float[12,36] w = ?, float[36] bw = ?, float[12,12] wo = ?, float[12] bo = ?, float[12,20] w1 = ?,
 float[20] b1 = ?, float[20,12] w2 = ?, float[12] b2 = ?, int64[1] one = {1}>
{
  ids32 = Cast <to = 6> (ids)
  mask32 = Cast <to = 6> (mask)
  lengths = ReduceSum <keepdims = 0> (mask32, one)
  x, unused = com.microsoft.EmbedLayerNormalization (ids32, , words, positions, , g, b)
  c = com.microsoft.Attention <num_heads = 3> (x, w, bw, lengths)
  o = MatMul (c, wo)
  n = com.microsoft.SkipLayerNormalization (o, x, g, b, bo)
  h = com.microsoft.FusedMatMul <alpha = 0.5> (n, w1)
  a = com.microsoft.BiasGelu (h, b1)
  f = MatMul (a, w2)
  y = com.microsoft.SkipLayerNormalization (f, n, g, b, b2)
}
)";

const char kCausalAttention[] = R"(
<ir_version: 8, opset_import: ["" : 18, "com.microsoft" : 1]>
agraph (float[B,S,12] x) => (float[B,S,12] y)
<float[12,42] w = ?, float[42] b = ?, float[18,12] wo = ?, float[12] g = +>
{
  n = com.microsoft.SkipSimplifiedLayerNormalization (x, x, g)
  c = com.microsoft.Attention <num_heads = 3, qkv_hidden_sizes = [12, 12, 18], unidirectional = 1> (n, w, b)
  o = MatMul (c, wo)
  y = Add (x, o)
}
)";

const char kMultiHead[] = R"(
<ir_version: 8, opset_import: ["" : 18, "com.microsoft" : 1]>
agraph (float[B,5,12] x, int64[B,5] p) => (float[B,5,12] y)
<float[12,12] wq = ?, float[12,12] wk = ?, float[12,12] wv = ?, float[36] b = ?,
 float[12,12] wo = ?, float[9,2] cos = ?, float[9,2] sin = ?, float[1,3,5,5] bias = ?>
{
  q = MatMul (x, wq)
  k = MatMul (x, wk)
  v = MatMul (x, wv)
  qr = com.microsoft.RotaryEmbedding (q, p, cos, sin)
  kr = com.microsoft.RotaryEmbedding (k, p, cos, sin)
  c = com.microsoft.MultiHeadAttention <num_heads = 3> (qr, kr, v, b, , bias)
  o = MatMul (c, wo)
  y = Add (x, o)
}
)";

const char kGroupQuery[] = R"(
<ir_version: 8, opset_import: ["" : 18, "com.microsoft" : 1]>
agraph (float[2,5,12] x) => (float[2,5,12] y)
<float[12,64] wq = ?, float[12,32] wk = ?, float[12,32] wv = ?, float[64,12] wo = ?,
 float[9,8] cos = ?, float[9,8] sin = ?, int32[2] last = {4, 4}, int32 total = {5}>
{
  q = MatMul (x, wq)
  k = MatMul (x, wk)
  v = MatMul (x, wv)
  c = com.microsoft.GroupQueryAttention <num_heads = 4, kv_num_heads = 2, do_rotary = 1, rotary_interleaved = 1> (q, k, v, , , last, total, cos, sin)
  o = MatMul (c, wo)
  y = Add (x, o)
}
)";

const char kOnnxAttention[] = R"(
<ir_version: 11, opset_import: ["" : 23]>
agraph (float[B,S,12] x) => (float[B,S,12] y)
<float[12,16] wq = ?, float[12,8] wk = ?, float[12,8] wv = ?, float[16,12] wo = ?>
{
  q = MatMul (x, wq)
  k = MatMul (x, wk)
  v = MatMul (x, wv)
  c = Attention <q_num_heads = 4, kv_num_heads = 2, is_causal = 1> (q, k, v)
  o = MatMul (c, wo)
  y = Add (x, o)
}
)";

}  // namespace

const std::vector<Family>& Families() {
  static const std::vector<Family> families = {
      {"BERT", kBert},
      {"GPT-2", kGpt2},
      {"timm, Gather", std::string(kTimmStart) + kTimmGather + kTimmRest},
      {"timm, Slice", std::string(kTimmStart) + kTimmSlice + kTimmRest},
      {"Llama", kLlama},
      {"packed gate and up, Split", kGateSplit},
      {"packed gate and up, Slice", kGateSlice},
      {"ResNet", kResNet},
      {"depthwise", kDepthwise},
      {"grouped", kGrouped},
      {"Flatten to Gemm", kFlatten},
      {"tied embedding", kTied},
      {"free embedding", kFree},
      {"fused BERT layer", kBertLayer, true},
      {"fused causal attention", kCausalAttention, true},
      {"fused attention with rotation", kMultiHead, true},
      {"fused grouped attention", kGroupQuery, true},
      {"ONNX's Attention", kOnnxAttention, true}};
  return families;
}

Model FamilyModel(std::string_view name) {
  const std::vector<Family>& all = Families();
  const auto found =
      std::find_if(all.begin(), all.end(), [&](const Family& f) { return f.name == name; });
  SF_CHECK(found != all.end(), "no family {}", name);
  Model model = ParseGraph(found->text);
  if (found->fused) {
    Context context;
    const PassStats stats = FindPass("decompose")->make({})->Run(model, context);
    for (const Finding& finding : stats.findings)
      SF_CHECK(finding.reason.empty(), "{}", finding.reason);
  }
  return model;
}

}  // namespace sparsefuse::test

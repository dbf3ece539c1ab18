#include "passes/statistics/cuts.h"

#include <fmt/format.h>

#include <algorithm>

#include "onnx_io/reader.h"
#include "passes/statistics/batches.h"
#include "tests/support/catch.h"
#include "tests/support/support.h"
#include "tests/unit/analysis/graphs.h"
#include "tests/unit/statistics/naive.h"

namespace sparsefuse {
namespace {

using test::ParseGraph;
using test::ParseUnnamed;
using Names = std::vector<std::string>;

Names InputsOf(const Model& model) {
  Names names;
  for (const Value* input : model.graph().inputs()) names.push_back(input->name());
  return names;
}

// Outputs of the whole model and of its segments one after the other, fed the cuts. Optimised, for
// that takes out Dropout, which one asset has in training mode.
void CheckChain(const Model& model, const Feeds& feeds) {
  Names outputs;
  for (const Value* output : model.graph().outputs()) outputs.push_back(output->name());
  const std::vector<Tensor> whole = Session(model, {}).Run(feeds, outputs);
  Names cuts = FindCuts(model);
  cuts.push_back("");
  Feeds carried = feeds;
  std::string from;
  std::vector<Tensor> results;
  for (const std::string& to : cuts) {
    const Model segment = Segment(model, from, to);
    Verify(segment);
    results = Session(segment, {}).Run(carried, to.empty() ? outputs : Names{to});
    carried = feeds;
    carried.emplace_back(to, results[0]);
    from = to;
  }
  for (size_t i = 0; i < whole.size(); ++i) {
    REQUIRE(results[i].dims() == whole[i].dims());
    const std::vector<float> a = results[i].ToFloats(), b = whole[i].ToFloats();
    CHECK(test::Difference(
              Eigen::Map<const Eigen::VectorXf>(a.data(), results[i].size()).cast<double>(),
              Eigen::Map<const Eigen::VectorXf>(b.data(), whole[i].size()).cast<double>()) < 1e-5);
  }
}

TEST_CASE("a chain is cut after every product but the last") {
  const Model model = ParseUnnamed(R"((float[n,4] x) => (float[n,4] y)
      <float[4,4] v = ?, float[4] b = ?, float[4,4] w = ?, float[4,4] u = ?> {
        a = MatMul(x, v) c = Add(a, b) d = Relu(c)
        e = Gemm(d, w, b) f = Tanh(e)
        y = MatMul(f, u) })");
  CHECK(FindCuts(model) == Names{"d", "f"});
  CHECK(InputsOf(Segment(model, "d", "f")) == Names{"d"});
  CheckChain(model, {{"x", test::RandomTensor({3, 4}, 1)}});
}

TEST_CASE("nothing is cut where types are not known") {
  const auto cuts = [](const char* activation) {
    return FindCuts(ParseGraph(fmt::format(
        R"(<ir_version: 8, opset_import: ["" : 17, "foreign" : 1]> g (float[n,4] x) => (float[n,4] y)
        <float[4,4] v = {{{}}}, float[4,4] w = {{{}}}> {{
          a = MatMul(x, v) d = {}(a)
          y = MatMul(d, w) }})",
        "1,0,0,0,0,1,0,0,0,0,1,0,0,0,0,1", "1,0,0,0,0,1,0,0,0,0,1,0,0,0,0,1", activation)));
  };
  CHECK(cuts("Relu") == Names{"d"});
  CHECK(cuts("foreign.Activation").empty());
}

TEST_CASE("nothing is cut while something is carried past it") {
  const Model model = ParseUnnamed(R"((float[n,4] x) => (float[n,4] y)
      <float[4,4] v = ?, float[4,4] w = ?, float[4,4] u = ?> {
        s = MatMul(x, v)
        a = MatMul(s, w) b = Relu(a) c = MatMul(b, u) d = Add(s, c)
        e = MatMul(d, w) f = Relu(e) g = MatMul(f, u) y = Add(d, g) })");
  CHECK(FindCuts(model) == Names{"s", "d"});
  CheckChain(model, {{"x", test::RandomTensor({3, 4}, 1)}});
}

TEST_CASE("before the first product and after the last nothing is cut") {
  CHECK(FindCuts(ParseUnnamed(R"((float[n,4] x) => (float[n,4] y) <float[4,4] v = ?>
      { a = Relu(x) b = MatMul(a, v) c = Tanh(b) y = Neg(c) })"))
            .empty());
  CHECK(FindCuts(ParseUnnamed("(float[n,4] x) => (float[n,4] y) { a = Relu(x) y = Neg(a) }"))
            .empty());
}

TEST_CASE("an output on the way ends the cuts") {
  const Model model = ParseUnnamed(R"((float[n,4] x) => (float[n,4] hidden, float[n,4] y)
      <float[4,4] v = ?, float[4,4] w = ?, float[4,4] u = ?> {
        a = MatMul(x, v) b = Relu(a)
        hidden = MatMul(b, w) c = Relu(hidden) d = MatMul(c, u) e = Relu(d) y = MatMul(e, v) })");
  CHECK(FindCuts(model) == Names{"b"});
  CheckChain(model, {{"x", test::RandomTensor({3, 4}, 1)}});
}

TEST_CASE("what nothing needs does not hinder") {
  const Model model = ParseUnnamed(R"((float[n,4] x) => (float[n,4] y)
      <float[4,4] v = ?, float[4,4] w = ?> {
        a = MatMul(x, v) dead = MatMul(a, w) deader = Relu(dead) b = Relu(a) y = MatMul(b, w) })");
  CHECK(FindCuts(model) == Names{"b"});
}

// Two attention layers over [b, s, 4]. `sides`: nodes before; `turn`, `mask`: of the queries, of
// the scores.
std::string Decoder(const std::string& inputs, const std::string& sides, const std::string& turn,
                    const std::string& mask) {
  std::string nodes = sides + " e = Gather(table, ids) ";
  std::string x = "e";
  for (int layer = 0; layer < 2; ++layer) {
    const auto own = [&](std::string text) {
      for (const auto& [from, to] :
           {std::pair<std::string, std::string>{"#", fmt::format("{}", layer)}, {"@", x}}) {
        for (size_t at; (at = text.find(from)) != std::string::npos;) {
          text.replace(at, 1, to);
        }
      }
      return text;
    };
    nodes += own("q# = MatMul(@, wq) " + turn +
                 " k# = MatMul(@, wk) t# = Transpose<perm = [0, 2, 1]>(k#) "
                 "s# = MatMul(r#, t#) " +
                 mask +
                 " p# = Softmax(m#) v# = MatMul(@, wv) o# = MatMul(p#, v#) z# = MatMul(o#, wo) "
                 "h# = Add(@, z#) ");
    x = fmt::format("h{}", layer);
  }
  return fmt::format(
      R"((int64[b,s] ids{}) => (float[b,s,3] y)
         <float[7,4] table = ?, float[9,4] angles = ?, float[1,1] frequency = {{0.3}},
          float[1,4,1] frequencies = ?, float[2,4] bend = ?, int64 zero = {{0}}, int64 one = {{1}},
          int64[1] first = {{1}}, float low = {{-9.0}}, float[4,4] types = ?,
          float[4,4] wq = ?, float[4,4] wk = ?, float[4,4] wv = ?, float[4,4] wo = ?,
          float[4,3] head = ?> {{ {} y = MatMul({}, head) }})",
      inputs, nodes, x);
}

Tensor Ids(const std::vector<int64_t>& values) { return Tensor::Of<int64_t>({2, 3}, values); }

TEST_CASE("masks and positions go beside the stream") {
  const Feeds feeds = {{"ids", Ids({1, 5, 2, 6, 0, 3})},
                       {"mask", Ids({1, 1, 0, 1, 1, 1})},
                       {"positions", Ids({0, 1, 2, 0, 1, 2})},
                       {"kinds", Ids({0, 0, 1, 0, 1, 1})}};
  const std::string none = " r# = Identity(q#)", open = "m# = Identity(s#)";
  const std::string add = "m# = Add(s#, d)";
  const std::string additive =
      "u = Unsqueeze(mask, first) c = Cast<to = 1>(u) g = Mul(c, low) d = Sub(low, g)";
  struct Side {
    std::string what, inputs, sides, turn, mask;
    Names needed;
    std::string join = "";  // is added to what the tokens stand for
  };
  for (const Side& side : {
           Side{"additive mask", ", int64[b,s] mask", additive, none, add, {"mask", "h0"}},
           Side{"table of rotations",
                ", int64[b,s] positions",
                "a = Gather(angles, positions)",
                "r# = Mul(q#, a)",
                open,
                {"positions", "h0"}},
           Side{"rotations by frequencies",
                ", int64[b,s] positions",
                "w = Unsqueeze(positions, first) f = Cast<to = 1>(w) a = MatMul(frequencies, f) "
                "n = Transpose<perm = [0, 2, 1]>(a) i = Cos(n)",
                "r# = Mul(q#, i)",
                open,
                {"positions", "h0"}},
           Side{"rotations by expanded frequencies",
                ", int64[b,s] positions",
                "w = Unsqueeze(positions, first) f = Cast<to = 1>(w) l = Shape(positions) "
                "j = Gather(l, zero) jj = Reshape(j, first) ones = Concat<axis = 0>(jj, first, "
                "first) "
                "x = Expand(frequencies, ones) a = MatMul(x, f) "
                "n = Transpose<perm = [0, 2, 1]>(a) i = Cos(n)",
                "r# = Mul(q#, i)",
                open,
                {"positions", "h0"}},
           Side{"positions by shape alone, bent by weights",
                "",
                "l = Shape(ids) k = Gather(l, one) a = Range(zero, k, one) f = Cast<to = 1>(a) "
                "g = Unsqueeze(f, first) gg = Concat<axis = 1>(g, g) i = MatMul(gg, bend)",
                "r# = Mul(q#, i)",
                open,
                {"ids", "h0"}},
           Side{"kinds of tokens join before",
                ", int64[b,s] kinds",
                "kind = Gather(types, kinds)",
                none,
                open,
                {"h0"},
                "kind"},
           Side{"places join before and in each layer",
                "",
                "l = Shape(ids) k = Gather(l, one) a = Range(zero, k, one) place = Gather(angles, "
                "a)",
                "r# = Add(q#, place)",
                open,
                {"ids", "h0"},
                "place"},
       }) {
    INFO(side.what);
    std::string text = Decoder(side.inputs, side.sides, side.turn, side.mask);
    if (!side.join.empty()) {
      const std::string lookup = "e = Gather(table, ids)";
      text.replace(text.find(lookup), lookup.size(),
                   fmt::format("e0 = Gather(table, ids) e = Add(e0, {})", side.join));
    }
    const Model model = ParseUnnamed(text);
    CHECK(FindCuts(model) == Names{"h0", "h1"});
    Names inputs = InputsOf(Segment(model, "h0", "h1"));
    CHECK(inputs == side.needed);
    CheckChain(model, feeds);
  }
}

TEST_CASE("what weights have multiplied is no side value") {
  // Conditions every layer, as the step of a diffusion model does.
  const Model model = ParseUnnamed(R"((float[n,4] x, float[n,4] step) => (float[n,4] y)
      <float[4,4] v = ?, float[4,4] w = ?, float[4,4] u = ?> {
        t = MatMul(step, v)
        a = MatMul(x, v) b = Add(a, t)
        c = MatMul(b, w) d = Add(c, t)
        y = MatMul(d, u) })");
  CHECK(FindCuts(model) == Names{"d"});
  CheckChain(model,
             {{"x", test::RandomTensor({3, 4}, 1)}, {"step", test::RandomTensor({3, 4}, 2)}});
}

TEST_CASE("a subgraph that reads a tensor keeps it open") {
  const Model model = ParseUnnamed(R"((float[n,4] x, bool c) => (float[n,4] y)
      <float[4,4] v = ?, float[4,4] w = ?, float[4,4] u = ?> {
        a = MatMul(x, v)
        b = MatMul(a, w)
        d = If(c) <then_branch = t () => (float[n,4] p) { p = Add(a, b) },
                   else_branch = e () => (float[n,4] q) { q = Neg(b) }>
        y = MatMul(d, u) })");
  CHECK(FindCuts(model) == Names{"a", "d"});
}

TEST_CASE("segments share weights and leave the model alone") {
  const Model model = ParseUnnamed(R"((float[n,4] x) => (float[n,4] y)
      <float[4,4] v = ?, float[4,4] w = ?> { a = MatMul(x, v) y = MatMul(a, w) })");
  const Model segment = Segment(model, "a", "");
  CHECK(segment.graph().node_count() == 1);
  CHECK(segment.graph().Initializers().size() == 1);
  CHECK(segment.graph().FindValue("w")->initializer()->SharesBytesWith(
      *model.graph().FindValue("w")->initializer()));
  CHECK(segment.graph().inputs()[0]->type()->dtype == DType::kFloat);
  CHECK(segment.graph().inputs()[0]->type()->dims.size() == 2);
  CHECK(model.graph().node_count() == 2);
  CHECK(Segment(model, "", "").graph().node_count() == 2);
}

// --- Assets
// ---------------------------------------------------------------------------------------

struct Asset {
  std::string file;
  size_t cuts;
};

TEST_CASE("the assets are cut between their sub-layers") {
  const auto assets = test::Assets();
  if (!assets) return;
  for (const Asset& asset : {
           // 4 layers of 2 sub-layers; the last of these is cut where the first token is picked;
           // and the pooler.
           Asset{"encoder-sst2/model.onnx", 9},
           Asset{"gpt2-style-shakespeare/model.onnx", 8},
           Asset{"shakespeare-gpt-small/model.onnx", 8},
           Asset{"stories260k/model.onnx", 10},
           // Patches, and 6 layers.
           Asset{"vit-cifar10/model.onnx", 13},
           Asset{"vit-cifar10/model_torchscript.onnx", 13},
           // The first convolution and 3 blocks.
           Asset{"resnet8-cifar10/model.onnx", 4},
           // Each of 9 convolutions.
           Asset{"kws-dscnn/model.onnx", 9},
           Asset{"mnist-cnn/model.onnx", 3},
       }) {
    INFO(asset.file);
    const Model model = ReadModel(*assets / asset.file);
    CHECK(FindCuts(model).size() == asset.cuts);
    const auto folder = (*assets / asset.file).parent_path();
    const Dataset data = Dataset::Load(folder / "calibration.npz", model);
    const std::vector<int64_t> samples = {4, 7};
    CheckChain(model, MakeBatches(data, samples, 2)[0]);
  }
}

TEST_CASE("only attention asks for the mask again") {
  const auto assets = test::Assets();
  if (!assets) return;
  const Model model = ReadModel(*assets / "encoder-sst2/model.onnx");
  const Names cuts = FindCuts(model);
  REQUIRE(cuts.size() == 9);
  CHECK(InputsOf(Segment(model, cuts[1], cuts[2])) == Names{"attention_mask", cuts[1]});
  CHECK(InputsOf(Segment(model, cuts[2], cuts[3])) == Names{cuts[2]});
  CHECK(InputsOf(Segment(model, cuts[8], "")) == Names{cuts[8]});
}

TEST_CASE("networks of any kind are cut without a complaint") {
  const auto assets = test::Assets();
  if (!assets) return;
  int models = 0;
  for (const auto& entry : std::filesystem::directory_iterator(*assets / "zoo")) {
    if (entry.path().extension() != ".onnx") continue;
    INFO(entry.path().string());
    const Model model = ReadModel(entry.path());
    Names cuts = FindCuts(model);
    cuts.push_back("");
    std::string from;
    for (const std::string& to : cuts) {
      Verify(Segment(model, from, to));
      from = to;
    }
    ++models;
  }
  CHECK(models > 0);
}

}  // namespace
}  // namespace sparsefuse

#include "passes/quantize/convolution_plan.h"

#include <limits>
#include <string>

#include "onnx_io/text.h"
#include "passes/quantize/convolution_variants.h"
#include "tests/support/catch.h"

namespace sparsefuse {
namespace {

// One-channel convolutions `Conv(·, w)` with a 1×1 filter: a plan looks at structure only.
Model OneChannel(const std::string& body, const std::string& outputs = "float[N,1,4,4] y",
                 const std::string& extra = "") {
  return ModelFromText(R"(<ir_version: 8, opset_import: ["" : 17]>
      g (float[N,1,4,4] x) => ()" +
                       outputs + R"() <
        float[1,1,1,1] w = {1}, float[1] b = {0},
        float[2,16] rows = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
                            1, 1, 1, 1, 1, 1, 1, 1},
        float[2,2] square = {1, 1, 1, 1}, float[2] pair = {1, 1}, float zero = {0}, float six = {6},
        float one = {1}, int64[2] flat = {0, -1})" +
                       extra + "> {" + body + "}");
}

class Planned {
 public:
  explicit Planned(const std::string& body, const std::string& outputs = "float[N,1,4,4] y",
                   const std::set<std::string>& keep_float = {})
      : model_(OneChannel(body, outputs)),
        plan_(PlanConvolutions(model_.graph(), context_, keep_float)) {}

  // "Conv:c Relu…" in plan order: operator and output, "=" in front of moves, "~" behind floats.
  std::string Nodes() const {
    std::string text;
    for (const CodedNode& node : plan_.nodes) {
      if (!text.empty()) text += ' ';
      if (node.kind == CodedKind::kMove) text += '=';
      text += node.node->op() + ":" + node.output->name();
      if (!node.coded_output) text += '~';
    }
    return text;
  }
  const Value* Of(const std::string& name) const { return model_.graph().FindValue(name); }
  bool SameGroup(const std::string& a, const std::string& b) const {
    return plan_.group.at(Of(a)) == plan_.group.at(Of(b));
  }
  // Names of the tensors that the range of `name` is read from.
  std::string Measured(const std::string& name) const {
    std::string text;
    for (const Value* value : plan_.measured.at(plan_.group.at(Of(name)))) {
      if (!text.empty()) text += ' ';
      text += value->name();
    }
    return text;
  }
  bool Absorbs(const std::string& name) const { return plan_.absorbed.contains(Of(name)); }
  bool IsBoundary(const std::string& name) const { return plan_.boundaries.contains(Of(name)); }
  const ConvolutionPlan& plan() const { return plan_; }

 private:
  Model model_;
  Context context_;
  ConvolutionPlan plan_;
};

TEST_CASE("a chain of convolutions codes its input and every output, Relu disappears") {
  const Planned p("c = Conv(x, w, b) r = Relu(c) y = Conv(r, w)");
  CHECK(p.Nodes() == "Conv:c Conv:y");
  CHECK(p.IsBoundary("x"));
  CHECK(p.Absorbs("c"));
  CHECK(p.SameGroup("c", "r"));
  CHECK(p.Measured("c") == "r");
  CHECK(p.Measured("x") == "x");
  CHECK(p.Measured("y") == "y");
}

TEST_CASE("Relu disappears through MaxPool, which moves codes") {
  const Planned p("c = Conv(x, w) m = MaxPool<kernel_shape = [1,1]>(c) r = Relu(m) y = Conv(r, w)");
  CHECK(p.Nodes() == "Conv:c =MaxPool:m Conv:y");
  CHECK(p.Absorbs("m"));
  CHECK(p.SameGroup("c", "r"));
  CHECK(p.Measured("c") == "r");
}

TEST_CASE("Relu stays where something else reads what it reads") {
  const Planned p("c = Conv(x, w) r = Relu(c) d = Conv(r, w) e = Conv(c, w) y = Add(d, e)");
  CHECK_FALSE(p.Absorbs("c"));
  CHECK(p.IsBoundary("r"));
  CHECK(p.Measured("c") == "c");
}

TEST_CASE("Relu stays where what it reads is an output of the model") {
  const Planned p("c = Conv(x, w) y = Relu(c)", "float[N,1,4,4] c, float[N,1,4,4] y");
  CHECK_FALSE(p.Absorbs("c"));
}

TEST_CASE("Clip from zero is a Relu, Clip from elsewhere is not") {
  CHECK(Planned("c = Conv(x, w) y = Clip(c, zero, six)").Absorbs("c"));
  CHECK(Planned("c = Conv(x, w) y = Clip(c, zero)").Absorbs("c"));
  CHECK_FALSE(Planned("c = Conv(x, w) y = Clip(c, one, six)").Absorbs("c"));
  CHECK_FALSE(Planned("c = Conv(x, w) y = Clip(c, , six)").Absorbs("c"));
}

TEST_CASE("a residual Add between convolutions is coded, its Relu disappears") {
  const Planned p("c = Conv(x, w) d = Conv(c, w) a = Add(c, d) r = Relu(a) y = Conv(r, w)");
  CHECK(p.Nodes() == "Conv:c Conv:d Add:a Conv:y");
  CHECK(p.Absorbs("a"));
  CHECK(p.Measured("a") == "r");
  CHECK_FALSE(p.SameGroup("c", "d"));
}

TEST_CASE("arithmetic that no product reads stays in float") {
  const Planned p("c = Conv(x, w) d = Conv(c, w) a = Add(c, d) y = Relu(a)");
  CHECK(p.Nodes() == "Conv:c Conv:d");
  CHECK_FALSE(p.Absorbs("a"));
}

TEST_CASE("arithmetic with a constant or a float operand stays in float") {
  CHECK(Planned("c = Conv(x, w) a = Add(c, one) y = Conv(a, w)").Nodes() == "Conv:c Conv:y");
  const Planned p("c = Conv(x, w) t = Tanh(c) a = Mul(c, t) y = Conv(a, w)");
  CHECK(p.Nodes() == "Conv:c Conv:y");
  CHECK(p.IsBoundary("a"));
}

TEST_CASE("pooling is coded even if only float operators read it") {
  CHECK(Planned("c = Conv(x, w) p = GlobalAveragePool(c) y = Tanh(p)").Nodes() ==
        "Conv:c GlobalAveragePool:p");
}

TEST_CASE("a Gemm behind convolutions takes codes and gives floats at the end") {
  const Planned p("c = Conv(x, w) f = Reshape(c, flat) y = Gemm<transB = 1>(f, rows)",
                  "float[N,2] y");
  CHECK(p.Nodes() == "Conv:c =Reshape:f Gemm:y~");
  CHECK_FALSE(p.plan().IsCoded(p.Of("y")));
}

TEST_CASE("a Gemm gives codes where another Gemm or a Relu reads it") {
  const Planned p(
      "c = Conv(x, w) f = Reshape(c, flat) g = Gemm<transB = 1>(f, rows, pair) r = Relu(g) "
      "h = Gemm(r, square) y = Relu(h)",
      "float[N,2] y");
  CHECK(p.Nodes() == "Conv:c =Reshape:f Gemm:g Gemm:h");
  CHECK(p.Absorbs("g"));
  CHECK(p.Absorbs("h"));
}

TEST_CASE("a Gemm that no convolution feeds, or with factors, is not the plan's") {
  CHECK(Planned("f = Reshape(x, flat) y = Gemm<transB = 1>(f, rows)", "float[N,2] y").Nodes() ==
        "");
  CHECK(Planned("c = Conv(x, w) f = Reshape(c, flat) y = Gemm<transB = 1, alpha = 0.5>(f, rows)",
                "float[N,2] y")
            .Nodes() == "Conv:c =Reshape:f");
}

TEST_CASE("moves in front of the first convolution go on codes") {
  const Planned p("t = Transpose<perm = [0,1,3,2]>(x) y = Conv(t, w)");
  CHECK(p.Nodes() == "=Transpose:t Conv:y");
  CHECK(p.IsBoundary("x"));
  CHECK(p.SameGroup("x", "t"));
  const Planned q("t = Transpose<perm = [0,1,3,2]>(x) c = Conv(t, w) y = Add(c, t)");
  CHECK(q.Nodes() == "Conv:c");
  CHECK(q.IsBoundary("t"));
}

TEST_CASE("MaxPool of floats stays in float: it makes the tensor smaller first") {
  const Planned p("m = MaxPool<kernel_shape = [2,2]>(x) y = Conv(m, w)");
  CHECK(p.Nodes() == "Conv:y");
  CHECK(p.IsBoundary("m"));
}

TEST_CASE("equal scales turn Concat into a move where signs allow") {
  const std::string outputs = "float[N,1,4,4] y";
  const Planned both(
      "c = Conv(x, w) d = Conv(x, w) r = Relu(c) s = Relu(d) "
      "k = Concat<axis = 2>(r, s) y = Conv(k, w)",
      outputs);
  CHECK(both.SameGroup("r", "s"));
  CHECK(both.SameGroup("r", "k"));
  CHECK(both.Measured("k") == "r s");
  CHECK(both.Nodes().find("=Concat:k") != std::string::npos);
  const Planned mixed(
      "c = Conv(x, w) d = Conv(x, w) r = Relu(c) k = Concat<axis = 2>(r, d) y = Conv(k, w)",
      outputs);
  CHECK_FALSE(mixed.SameGroup("r", "d"));
  CHECK_FALSE(mixed.SameGroup("r", "k"));
  CHECK(mixed.Nodes().find("=Concat:k") == std::string::npos);
  CHECK(mixed.Nodes().find("Concat:k") != std::string::npos);
}

TEST_CASE("nodes kept in float are left out, and what depends on them") {
  const Planned p("c = Conv(x, w) d = Conv(c, w) a = Add(d, c) y = Conv(a, w)", "float[N,1,4,4] y",
                  {"c"});
  CHECK(p.Nodes() == "Conv:d Conv:y");
  CHECK(p.IsBoundary("c"));
  CHECK(p.IsBoundary("a"));
}

TEST_CASE("why a convolution stays in float") {
  Context context;
  const auto why = [&](const std::string& body, const std::string& extra = "") {
    const Model model = OneChannel(body, "float[N,1,4,4] y", extra);
    for (const Node* node : model.graph().Nodes()) {
      if (node->Is("Conv")) return WhyFloat(*node, context);
    }
    return std::string("no Conv");
  };
  CHECK(why("y = Conv(x, w, b)").empty());
  CHECK(why("v = Mul(w, one) y = Conv(x, v)") == "weight is not constant");
  CHECK(why("y = Conv(x, w, v) v = Mul(b, one)") == "bias is not constant");
  CHECK(why("y = Conv(x, v)", ", double[1,1,1,1] v = {1}") ==
        "weight is double, only float is supported");
  CHECK(why("v = DequantizeLinear(q, one) y = Conv(x, v)", ", int8[1,1,1,1] q = {1}") ==
        "already quantised");
  CHECK(why("y = Conv(x, w, pair)") == "bias has 2 values for 1 filters");
  context.exclude_op_types = {"Conv"};
  CHECK(why("y = Conv(x, w)") == "excluded");
}

TEST_CASE("infinite weights are found") {
  Model model = OneChannel("y = Conv(x, w, b)");
  CHECK(HasFiniteWeights(*model.graph().Nodes()[0]));
  model.graph().FindValue("w")->set_initializer(
      Tensor::Of({1, 1, 1, 1}, std::vector<float>{std::numeric_limits<float>::infinity()}));
  CHECK_FALSE(HasFiniteWeights(*model.graph().Nodes()[0]));
}

std::string NamesOfVariants(const std::string& body, const std::string& outputs) {
  Model model = OneChannel(body, outputs);
  Context context;
  std::string names;
  for (const ConvolutionVariant& variant : ListVariants(model.graph(), context, {})) {
    if (!names.empty()) names += ' ';
    names += variant.name;
  }
  return names;
}

TEST_CASE("variants that come to the same are listed once") {
  CHECK(NamesOfVariants("y = Conv(x, w)", "float[N,1,4,4] y") == "all");
  CHECK(NamesOfVariants("c = Conv(x, w) y = Conv(c, w)", "float[N,1,4,4] y") == "all first-float");
  CHECK(NamesOfVariants("c = Conv(x, w) d = Conv(c, w) p = GlobalAveragePool(d) y = Tanh(p)",
                        "float[N,1,1,1] y") == "all first-float ends-float");
}

}  // namespace
}  // namespace sparsefuse

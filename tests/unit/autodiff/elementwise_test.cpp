// Rules of operators that work on each element, broadcasting included.

#include <string>

#include "onnx_io/text.h"
#include "passes/engine/engine.h"
#include "tests/support/catch.h"
#include "tests/unit/autodiff/finite_differences.h"

namespace sparsefuse::test {
namespace {

// One node `op` on $[2,3,4] x.
RuleCase Unary(const std::string& node, double low = -2, double high = 2) {
  return {
      .text = "agraph ($[2,3,4] x) => ($[2,3,4] y) { y = " + node + " }", .low = low, .high = high};
}

RuleCase InFloat(RuleCase rule_case) {
  rule_case.judgement = kFloat;
  return rule_case;
}

TEST_CASE("operators of two inputs, broadcast in every way") {
  for (const std::string op : {"Add", "Sub", "Mul", "Div", "Max", "Min", "Sum", "Mean"}) {
    for (const std::string shapes :
         {"$[2,3,4] a, $[2,3,4] b", "$[2,3,4] a, $[4] b", "$[2,1,4] a, $[3,1] b",
          "$[1,3,1] a, $[2,3,4] b", "$[] a, $[2,3] b", "$[2,3] a, $[1] b", "$[1,1] a, $[5,3] b",
          "$[n,3] a, $[m,1] b", "$[n,m] a, $[2,3] b", "$[4] a, $[1,4] b"}) {
      CAPTURE(op, shapes);
      CheckRule({.text = "agraph (" + shapes + ") => ($[d,e,f] y) { y = " + op + "(a, b) }",
                 .judgement = op == "Mean" ? kFloat : kDouble,  // the engine's Mean is float only
                 .lengths = {{"n", 1}, {"m", 3}, {"d", 0}, {"e", 0}, {"f", 0}},
                 .low = 0.5,
                 .high = 2});
    }
  }
}

TEST_CASE("the same tensor as both operands") {
  CheckRule({"agraph ($[2,3] x) => ($[2,3] y) { y = Mul(x, x) }"});
  CheckRule(
      {.text = "agraph ($[2,3] x) => ($[2,3] w) { y = Div(x, x) z = Add(x, y) w = Add(x, z) }",
       .low = 1});
}

TEST_CASE("Sum, Mean, Max and Min of three and of one") {
  for (const std::string op : {"Sum", "Mean", "Max", "Min"}) {
    CAPTURE(op);
    const Judgement judgement = op == "Mean" ? kFloat : kDouble;
    CheckRule({"agraph ($[2,3] a, $[3] b, $[2,1] c) => ($[2,3] y) { y = " + op + "(a, b, c) }",
               judgement});
    CheckRule({"agraph ($[2,3] a) => ($[2,3] y) { y = " + op + "(a) }", judgement});
  }
}

TEST_CASE("Max shares evenly among equals") {
  Model model =
      ModelFromText("agraph (double[1] a, double[1] b) => (double[1] y) { y = Max(a, b) }");
  const std::vector<std::string> tensors = {"a", "b"};
  const std::vector<Seed> seeds = {{"y", "a"}};
  const Gradients gradients = AddGradients(model, tensors, seeds);
  const Tensor four = Tensor::Of<double>({1}, std::vector<double>{4});
  for (const Tensor& g : Session(WithOutputs(model, gradients.values), {})
                             .Run({{"a", four}, {"b", four}}, gradients.values)) {
    CHECK(g.data<double>()[0] == 2);
  }
}

TEST_CASE("Pow: base, exponent, constants, other types") {
  CheckRule({.text = "agraph ($[2,3] x, $[3] e) => ($[2,3] y) { y = Pow(x, e) }", .low = 0.5});
  CheckRule({.text = "agraph ($[3] x, $[2,3] e) => ($[2,3] y) { y = Pow(x, e) }", .low = 0.5});
  for (const std::string e : {"2", "3", "1", "0.5"}) {
    CAPTURE(e);
    CheckRule({.text = "agraph ($[2,3] x) => ($[2,3] y) <$ e = {" + e + "}> { y = Pow(x, e) }",
               .low = 0.5});
  }
  CheckRule({"agraph ($[2,3] x) => ($[2,3] y) <int64 e = {3}> { y = Pow(x, e) }"});
  CheckRule({"agraph ($[2,3] x) => ($[2,3] y) <float e = {2}> { y = Pow(x, e) }"});
  CheckRule(
      {"agraph ($[2,3] x) => ($[2,3] y) <$[2,1] e = {0, 3}> { p = Pow(x, e) y = Add(p, x) }"});
}

TEST_CASE("Where and PRelu") {
  for (const std::string shapes : {"$[2,3] a, $[2,3] b", "$[3] a, $[2,1] b", "$[] a, $[2,3] b"}) {
    CheckRule({"agraph (" + shapes +
               ") => ($[2,3] y) <bool[2,3] c = {1,0,1,1,0,0}> "
               "{ y = Where(c, a, b) }"});
  }
  CheckRule(
      {"agraph ($[1,3] a, $[] b) => ($[2,3] y) <bool[2,1] c = {1,0}> { y = Where(c, a, b) }"});
  CheckRule({"agraph ($[2,3] x, $[3] s) => ($[2,3] y) { y = PRelu(x, s) }"});
  CheckRule({"agraph ($[2,3] x, $[1] s) => ($[2,3] y) { y = PRelu(x, s) }"});
}

TEST_CASE("operators of one input") {
  for (const std::string op : {"Identity", "Neg", "Abs", "Exp", "Sin", "Cos", "Tanh", "Sigmoid",
                               "Relu", "Softplus", "Dropout"}) {
    CAPTURE(op);
    CheckRule(Unary(op + "(x)"));
  }
  for (const std::string op : {"Reciprocal", "Sqrt", "Log"}) {
    CAPTURE(op);
    CheckRule(Unary(op + "(x)", 0.5, 3));
  }
  CheckRule(InFloat(Unary("Erf(x)")));
  CheckRule({"agraph ($ x) => ($ y) { y = Tanh(x) }"});
}

TEST_CASE("activations with parameters") {
  CheckRule(Unary("LeakyRelu<alpha = 0.3>(x)"));
  CheckRule(Unary("LeakyRelu(x)"));
  CheckRule(InFloat(Unary("Elu<alpha = 0.7>(x)")));
  CheckRule(Unary("HardSigmoid<alpha = 0.3, beta = 0.4>(x)"));
  CheckRule(InFloat(Unary("HardSwish(x)", -5, 5)));
  CheckRule(InFloat(Unary("Mish(x)")));
}

TEST_CASE("Gelu in its forms") {
  const auto gelu = [](const std::string& attribute, const std::string& domain) {
    return RuleCase{.text =
                        "<ir_version: 9, opset_import: [\"\" : 20, \"com.microsoft\" : 1]> agraph "
                        "($[2,5] x) => ($[2,5] y) { y = " +
                        domain + "Gelu" + attribute + "(x) }",
                    .judgement = kFloat};
  };
  CheckRule(gelu("", ""));
  CheckRule(gelu("<approximate = \"tanh\">", ""));
  CheckRule(gelu("", "com.microsoft."));
  CheckRule(gelu("", "com.microsoft.Fast"));
  CheckRule(gelu("<alpha = 1.5>", "com.microsoft.Quick"));
  RuleCase biased = gelu("", "com.microsoft.Fast");
  biased.text.replace(biased.text.find("x)"), 2, "x, $[5] b)");
  biased.text.replace(biased.text.rfind("(x)"), 3, "(x, b)");
  CheckRule(biased);
}

TEST_CASE("Gelu taken apart as exporters write it") {
  CheckRule({R"(
agraph ($[2,5] x) => ($[2,5] y) <$ r = {1.4142135}, $ one = {1}, $ half = {0.5}> {
  d = Div(x, r)  e = Erf(d)  a = Add(e, one)  m = Mul(x, a)  y = Mul(m, half)
})",
             kFloat});
  CheckRule({R"(
agraph ($[2,5] x) => ($[2,5] y) <$ three = {3}, $ c = {0.044715}, $ s = {0.79788456},
                                 $ one = {1}, $ half = {0.5}> {
  p = Pow(x, three)  q = Mul(p, c)  a = Add(x, q)  b = Mul(a, s)  t = Tanh(b)  u = Add(t, one)
  h = Mul(x, half)  y = Mul(h, u)
})"});
}

TEST_CASE("Clip with both, one and no bound") {
  CheckRule({.text = "agraph ($[4,5] x) => ($[4,5] y) <$ l = {-1}, $ h = {0.7}> "
                     "{ y = Clip(x, l, h) }"});
  CheckRule({"agraph ($[4,5] x) => ($[4,5] y) <$ h = {0.7}> { y = Clip(x, , h) }"});
  CheckRule({"agraph ($[4,5] x) => ($[4,5] y) { y = Clip(x) }"});
}

TEST_CASE("Cast between floating-point types") {
  CheckRule({.text = "agraph (float[2,3] x) => (float[2,3] y) { d = Cast<to = 11>(x) "
                     "e = Mul(d, d) y = Cast<to = 1>(e) }",
             .judgement = kFloat});
}

}  // namespace
}  // namespace sparsefuse::test

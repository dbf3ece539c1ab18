// Rules of matrix products, softmax and normalisations.

#include <string>

#include "tests/support/catch.h"
#include "tests/unit/autodiff/finite_differences.h"

namespace sparsefuse::test {
namespace {

TEST_CASE("MatMul of all ranks, with broadcast batch axes") {
  for (const std::string shapes :
       {"$[3,4] a, $[4,5] b", "$[2,3,4] a, $[4,5] b", "$[2,2,3,4] a, $[4,5] b",
        "$[3,4] a, $[2,4,5] b", "$[2,3,4] a, $[2,4,5] b", "$[2,1,3,4] a, $[5,4,2] b",
        "$[1,3,4] a, $[2,4,5] b", "$[4] a, $[4] b", "$[4] a, $[4,5] b", "$[3,4] a, $[4] b",
        "$[2,3,4] a, $[4] b", "$[4] a, $[2,4,5] b", "$[4] a, $[2,3,4,5] b", "$[n,m,4] a, $[4,5] b",
        "$[n,3,k] a, $[p,k,5] b", "$[1,1] a, $[1,1] b"}) {
    CAPTURE(shapes);
    CheckRule({.text = "agraph (" + shapes + ") => ($[] y) { y = MatMul(a, b) }",
               .lengths = {{"n", 2}, {"m", 3}, {"k", 4}, {"p", 1}}});
  }
}

TEST_CASE("Gemm in its four forms") {
  for (const bool a : {false, true}) {
    for (const bool b : {false, true}) {
      for (const std::string c :
           {"", ", $[5] c", ", $[3,1] c", ", $[3,5] c", ", $[] c", ", $[n] c"}) {
        CAPTURE(a, b, c);
        CheckRule({.text = "agraph ($" + std::string(a ? "[4,3]" : "[3,4]") + " a, $" +
                           (b ? "[5,4]" : "[4,5]") + " b" + c +
                           ") => ($[3,5] y) { y = Gemm<alpha = 0.5, beta = " +
                           (c.empty() ? "1.0" : "1.5") + ", transA = " + (a ? "1" : "0") +
                           ", transB = " + (b ? "1" : "0") + ">(a, b" + (c.empty() ? "" : ", c") +
                           ") }",
                   .lengths = {{"n", 1}}});
      }
    }
  }
}

TEST_CASE("Softmax and LogSoftmax along every axis") {
  for (const std::string op : {"Softmax", "LogSoftmax"}) {
    for (const std::string axis : {"", "<axis = 0>", "<axis = 1>", "<axis = -1>", "<axis = -3>"}) {
      CAPTURE(op, axis);
      CheckRule({"agraph ($[2,3,5] x) => ($[2,3,5] y) { y = " + op + axis + "(x) }"});
    }
  }
}

TEST_CASE("a Softmax with masked positions") {
  CheckRule({R"(
agraph ($[2,4] x) => ($[2,4] y) <bool[1,4] mask = {1,1,0,1}, $ low = {-1e30}> {
  m = Where(mask, x, low)
  y = Softmax(m)
})"});
}

TEST_CASE("LayerNormalization over one axis and over several") {
  const auto layer = [](const std::string& axis, const std::string& scale,
                        const std::string& bias) {
    return RuleCase{"agraph ($[2,3,5] x, $" + scale + " g" +
                    (bias.empty() ? "" : ", $" + bias + " b") +
                    ") => ($[2,3,5] y) { y = LayerNormalization<" + axis + "epsilon = 0.01>(x, g" +
                    (bias.empty() ? "" : ", b") + ") }"};
  };
  CheckRule(layer("", "[5]", "[5]"));
  CheckRule(layer("axis = 2, ", "[5]", ""));
  CheckRule(layer("axis = -2, ", "[3,5]", "[3,5]"));
  CheckRule(layer("axis = 1, ", "[3,5]", "[3,5]"));
}

TEST_CASE("LayerNormalization and root mean square taken apart") {
  CheckRule({.text = R"(
agraph ($[n,3,5] x, $[5] g, $[5] b) => ($[n,3,5] y) <$ two = {2}, $ eps = {0.01}> {
  m = ReduceMean<keepdims = 1>(x, axes)  d = Sub(x, m)  p = Pow(d, two)
  v = ReduceMean<keepdims = 1>(p, axes)  e = Add(v, eps)  s = Sqrt(e)  h = Div(d, s)
  k = Mul(h, g)  y = Add(k, b)
  axes = Constant<value_ints = [-1]>()
})",
             .lengths = {{"n", 2}}});
  CheckRule({R"(
agraph ($[2,3,5] x, $[5] g) => ($[2,3,5] y) <$ two = {2}, $ eps = {0.01}, int64[1] axes = {-1}> {
  p = Pow(x, two)  v = ReduceMean<keepdims = 1>(p, axes)  e = Add(v, eps)  s = Sqrt(e)
  r = Reciprocal(s)  h = Mul(x, r)  y = Mul(g, h)
})"});
}

TEST_CASE("RMSNormalization and SimplifiedLayerNormalization") {
  CheckRule({.text = "<ir_version: 10, opset_import: [\"\" : 23]> agraph ($[2,3,5] x, $[5] g) => "
                     "($[2,3,5] y) { y = RMSNormalization<epsilon = 0.01>(x, g) }"});
  CheckRule({.text = "agraph ($[2,3,5] x, $[5] g) => ($[2,3,5] y) "
                     "{ y = SimplifiedLayerNormalization<epsilon = 0.01>(x, g) }"});
}

TEST_CASE("InstanceNormalization and BatchNormalization") {
  CheckRule({.text = "agraph ($[2,3,4,5] x, $[3] g, $[3] b) => ($[2,3,4,5] y) "
                     "{ y = InstanceNormalization<epsilon = 0.01>(x, g, b) }",
             .judgement = kFloat});
  for (const std::string shape : {"[2,3,4,5]", "[2,3]", "[2,3,4]", "[n,3,4,5]"}) {
    CAPTURE(shape);
    CheckRule({.text = "agraph ($" + shape + " x, $[3] g, $[3] b, $[3] m, $[3] v) => ($" + shape +
                       " y) { y = BatchNormalization<epsilon = 0.01>(x, g, b, m, v) }",
               .lengths = {{"n", 2}},
               .low = 0.5});
  }
}

}  // namespace
}  // namespace sparsefuse::test

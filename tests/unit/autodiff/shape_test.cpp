// Rules of operators that move elements, and of reductions.

#include <algorithm>
#include <map>
#include <string>

#include "tests/support/catch.h"
#include "tests/unit/autodiff/finite_differences.h"

namespace sparsefuse::test {
namespace {

const std::map<std::string, int64_t> kLengths = {{"n", 2}, {"m", 3}, {"k", 4}};

// $[2,3,4] x and $[n,m,k] x through `nodes`, which end in y.
void CheckBoth(const std::string& constants, const std::string& nodes) {
  for (const std::string shape : {"[2,3,4]", "[n,m,k]"}) {
    CheckRule({.text = "agraph ($" + shape + " x) => ($[] y) <" + constants + "> { " + nodes + " }",
               .lengths = kLengths});
  }
}

TEST_CASE("Reshape, Flatten, Squeeze, Unsqueeze, Transpose, Expand") {
  CheckBoth("int64[2] s = {-1, 6}", "y = Reshape(x, s)");
  CheckBoth("int64[2] s = {0, -1}", "y = Reshape(x, s)");
  CheckBoth("int64[1] u = {1}", "y = Flatten<axis = 2>(x)");
  CheckBoth("int64[2] u = {0, -1}", "y = Unsqueeze(x, u)");
  CheckBoth("int64[1] u = {1}", "z = Unsqueeze(x, u) y = Squeeze(z, u)");
  CheckBoth("int64[1] u = {1}", "z = Unsqueeze(x, u) y = Squeeze(z)");
  CheckBoth("int64[1] u = {1}", "y = Transpose<perm = [2, 0, 1]>(x)");
  CheckBoth("int64[1] u = {1}", "y = Transpose(x)");
  CheckBoth("int64[4] s = {5, 1, 3, 1}", "y = Expand(x, s)");
  CheckRule({"agraph ($[3,1] x) => ($[] y) <int64[3] s = {2, 1, 4}> { y = Expand(x, s) }"});
  CheckRule({.text = "agraph ($[m,n] x) => ($[] y) <int64[3] s = {2, 1, 4}> { y = Expand(x, s) }",
             .lengths = {{"m", 3}, {"n", 1}}});
}

TEST_CASE("Concat and Split, unused outputs too") {
  for (const std::string axis : {"1", "-2"}) {
    for (const std::string shapes : {"$[2,3,4] a, $[2,1,4] b", "$[n,m,k] a, $[n,p,k] b"}) {
      CheckRule({.text = "agraph (" + shapes +
                         ") => ($[] y) <$[2,2,4] c = {1,2,3,4,5,6,7,8,"
                         "1,2,3,4,5,6,7,8}> { y = Concat<axis = " +
                         axis + ">(a, c, b, a) }",
                 .lengths = {{"n", 2}, {"m", 3}, {"k", 4}, {"p", 1}}});
    }
  }
  CheckBoth("int64[2] s = {1, 3}", "p, q = Split<axis = 2>(x, s) z = Exp(q) y = Mul(p, z)");
  CheckBoth("int64[2] s = {1, 3}", "p, y = Split<axis = -1>(x, s)");
  CheckBoth("int64[1] s = {1}", "p, q = Split<axis = 2, num_outputs = 2>(x) y = Mul(p, q)");
}

TEST_CASE("Slice: starts, ends, axes, steps, negative and beyond") {
  const auto slice = [](const std::string& starts, const std::string& ends, const std::string& axes,
                        const std::string& steps) {
    const auto ints = [](const std::string& name, const std::string& numbers) {
      const auto count = 1 + std::count(numbers.begin(), numbers.end(), ',');
      return "int64[" + std::to_string(count) + "] " + name + " = {" + numbers + "}";
    };
    std::string constants = ints("s", starts) + ", " + ints("e", ends);
    std::string inputs = "x, s, e";
    if (!axes.empty()) constants += ", " + ints("a", axes), inputs += ", a";
    if (!steps.empty())
      constants += ", " + ints("t", steps), inputs += axes.empty() ? ", , t" : ", t";
    CAPTURE(constants);
    CheckBoth(constants, "y = Slice(" + inputs + ")");
  };
  slice("1", "3", "2", "");
  slice("1", "9223372036854775807", "-1", "1");
  slice("0,1", "2,3", "", "");
  slice("-2", "9223372036854775807", "1", "1");
  slice("-100", "2", "2", "1");
  slice("0,-3", "1,-1", "0,2", "1,1");
  slice("0", "4", "2", "2");
  slice("3", "-100", "2", "-1");
  slice("2,0", "0,2", "2,0", "-2,1");
}

TEST_CASE("Slice with bounds computed while running") {
  CheckRule({.text = R"(
agraph ($[n,6] x) => ($[] y) <int64[1] one = {1}, int64[1] i = {1}> {
  s = Shape(x)  w = Gather(s, i)  e = Sub(w, one)  b = Sub(e, one)  y = Slice(x, b, e, i)
})",
             .lengths = kLengths});
}

TEST_CASE("Pad in its modes, cropping too") {
  CheckBoth("int64[6] p = {0, 1, 2, 0, 0, 1}", "y = Pad(x, p)");
  CheckBoth("int64[6] p = {0, 1, -2, 0, -1, 1}, $ c = {5}", "y = Pad(x, p, c)");
  CheckBoth("int64[2] p = {1, 2}, int64[1] a = {-1}", "y = Pad(x, p, , a)");
  CheckBoth("int64[6] p = {0, 1, 2, 0, 0, 1}", "y = Pad<mode = \"reflect\">(x, p)");
  CheckBoth("int64[6] p = {0, 1, 2, 0, 0, 3}", "y = Pad<mode = \"edge\">(x, p)");
}

TEST_CASE("Gather: repeated and negative indices, any axis, scalar indices") {
  for (const std::string axis : {"0", "1", "2", "-1", "-3"}) {
    CAPTURE(axis);
    CheckBoth("int64[2,2] i = {1, 0, 1, -1}", "y = Gather<axis = " + axis + ">(x, i)");
    CheckBoth("int64 i = {1}", "y = Gather<axis = " + axis + ">(x, i)");
  }
  CheckRule({"agraph ($[5,3] w) => ($[] y) <int32[2,2] i = {4, 1, 4, 0}> { y = Gather(w, i) }"});
}

TEST_CASE("an embedding whose ids are an input") {
  CheckRule(
      {.text = "agraph ($[5,3] w, int64[b,t] ids) => ($[b,t,3] y) { y = Gather(w, ids) }",
       .feeds = {{"ids", Tensor::Of<int64_t>({2, 3}, std::vector<int64_t>{4, 1, 4, 0, 1, 4})}}});
}

TEST_CASE("GatherElements, GatherND, Tile, Trilu, CumSum, TopK, Resize") {
  CheckBoth("int64[1,2,4] i = {0,2,2,1,-1,0,2,0}", "y = GatherElements<axis = 1>(x, i)");
  CheckBoth("int64[3,2] i = {0,2,1,1,0,2}", "y = GatherND(x, i)");
  CheckBoth("int64[3] r = {2,1,3}", "y = Tile(x, r)");
  CheckBoth("int64 k = {1}", "y = Trilu<upper = 0>(x, k)");
  CheckBoth("int64 k = {1}", "y = Trilu(x)");
  CheckBoth("int64 a = {1}", "y = CumSum(x, a)");
  CheckBoth("int64 a = {2}", "y = CumSum<exclusive = 1, reverse = 1>(x, a)");
  CheckBoth("int64[1] k = {2}", "y, i = TopK<axis = 1>(x, k)");
  CheckRule({.text = "agraph ($[1,2,3,4] x) => ($[] y) <float[4] s = {1, 1, 2, 2.5}> "
                     "{ y = Resize<mode = \"nearest\", coordinate_transformation_mode = "
                     "\"asymmetric\", nearest_mode = \"floor\">(x, , s) }",
             .judgement = kLinearFloat});
}

TEST_CASE("reductions: axes, all axes, with and without the reduced axes") {
  for (const std::string op : {"ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceL2",
                               "ReduceSumSquare", "ReduceLogSumExp"}) {
    for (const std::string keep : {"0", "1"}) {
      CAPTURE(op, keep);
      const std::string head = "y = " + op + "<keepdims = " + keep;
      CheckBoth("int64[1] a = {-1}", head + ">(x, a)");
      CheckBoth("int64[2] a = {0, 2}", head + ">(x, a)");
      CheckBoth("int64[1] a = {1}", head + ">(x)");
      if (op != "ReduceL2") CheckBoth("int64[1] a = {1}", head + ", noop_with_empty_axes = 1>(x)");
    }
  }
}

TEST_CASE("reductions of opset 13, axes as an attribute") {
  for (const std::string op : {"ReduceMean", "ReduceMax", "ReduceL2"}) {
    CheckRule({"<ir_version: 8, opset_import: [\"\" : 13]> agraph ($[2,3,4] x) => ($[] y) { y = " +
               op + "<axes = [1, -1], keepdims = 0>(x) }"});
  }
}

}  // namespace
}  // namespace sparsefuse::test

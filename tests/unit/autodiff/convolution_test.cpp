// Rules of convolutions and pooling. Both are linear, so float is exact enough with long steps,
// but a long step may change which element is the largest.

#include <string>

#include "tests/support/catch.h"
#include "tests/unit/autodiff/finite_differences.h"

namespace sparsefuse::test {
namespace {

RuleCase Layer(const std::string& op, const std::string& attributes, const std::string& shapes,
               const std::string& inputs, int64_t opset = 19) {
  return {.text = "<ir_version: 9, opset_import: [\"\" : " + std::to_string(opset) + "]> agraph (" +
                  shapes + ") => ($[] y) { y = " + op + "<" + attributes + ">(" + inputs + ") }",
          .judgement = kLinearFloat,
          .lengths = {{"n", 2}, {"c", 4}, {"h", 7}, {"w", 6}}};
}

TEST_CASE("Conv: strides, padding, dilations, groups, 1-D to 3-D, dynamic sizes") {
  for (const std::string shape : {"[2,4,7,6]", "[n,c,h,w]"}) {
    for (const std::string attributes :
         {"strides = [1, 1]", "strides = [2, 2]", "strides = [2, 3], pads = [1, 0, 1, 2]",
          "pads = [2, 2, 2, 2], dilations = [2, 1]",
          "strides = [3, 2], dilations = [1, 2], pads = [0, 1, 2, 0]", "auto_pad = \"SAME_UPPER\"",
          "auto_pad = \"SAME_LOWER\", strides = [2, 2]",
          "auto_pad = \"SAME_UPPER\", strides = [3, 2]", "auto_pad = \"VALID\""}) {
      CAPTURE(shape, attributes);
      CheckRule(Layer("Conv", attributes, "$" + shape + " x, $[3,4,3,2] k, $[3] b", "x, k, b"));
      CheckRule(Layer("Conv", attributes + ", group = 2", "$" + shape + " x, $[6,2,3,2] k, $[6] b",
                      "x, k, b"));
      CheckRule(
          Layer("Conv", attributes + ", group = 4", "$" + shape + " x, $[4,1,3,2] k", "x, k"));
    }
  }
  CheckRule(Layer("Conv", "strides = [2], pads = [1, 1]", "$[2,3,9] x, $[4,3,3] k", "x, k"));
  CheckRule(Layer("Conv", "kernel_shape = [4], dilations = [2]", "$[n,3,h] x, $[4,3,4] k", "x, k"));
  CheckRule(Layer("Conv", "strides = [2, 1, 2]", "$[1,2,5,4,5] x, $[3,2,2,2,3] k", "x, k"));
  CheckRule(Layer("Conv", "strides = [4, 4]", "$[2,3,8,8] x, $[5,3,4,4] k, $[5] b", "x, k, b"));
}

TEST_CASE("ConvTranspose") {
  for (const std::string attributes :
       {"strides = [1, 1]", "strides = [2, 3]", "strides = [2, 2], pads = [1, 0, 1, 1]",
        "strides = [3, 2], output_padding = [2, 1]",
        "strides = [2, 1], dilations = [2, 1], output_padding = [1, 0]"}) {
    CAPTURE(attributes);
    CheckRule(Layer("ConvTranspose", attributes, "$[2,4,3,4] x, $[4,3,3,2] k, $[3] b", "x, k, b"));
    CheckRule(
        Layer("ConvTranspose", attributes + ", group = 2", "$[n,4,3,w] x, $[4,3,3,2] k", "x, k"));
  }
}

TEST_CASE("AveragePool: what padding and ceil_mode count") {
  for (const std::string shape : {"[2,3,7,6]", "[n,c,h,w]"}) {
    for (const std::string attributes :
         {"kernel_shape = [2, 2]", "kernel_shape = [3, 2], strides = [2, 2]",
          "kernel_shape = [3, 3], pads = [1, 1, 1, 1]",
          "kernel_shape = [3, 3], pads = [1, 0, 2, 1], strides = [2, 3]",
          "kernel_shape = [3, 3], pads = [1, 1, 1, 1], count_include_pad = 1",
          "kernel_shape = [2, 2], strides = [2, 4], ceil_mode = 1",
          "kernel_shape = [3, 3], strides = [2, 2], pads = [1, 1, 1, 1], ceil_mode = 1",
          "kernel_shape = [3, 3], strides = [2, 2], pads = [1, 1, 1, 1], ceil_mode = 1, "
          "count_include_pad = 1",
          "kernel_shape = [2, 3], dilations = [2, 1]",
          "kernel_shape = [3, 3], auto_pad = \"SAME_UPPER\", strides = [2, 2]"}) {
      CAPTURE(shape, attributes);
      CheckRule(Layer("AveragePool", attributes, "$" + shape + " x", "x"));
    }
  }
  CheckRule(Layer("AveragePool", "kernel_shape = [3], strides = [2]", "$[2,3,9] x", "x"));
}

TEST_CASE("MaxPool: overlapping windows, padding, ceil_mode") {
  for (const std::string shape : {"[2,3,7,6]", "[n,c,h,w]"}) {
    for (const std::string attributes :
         {"kernel_shape = [2, 2], strides = [2, 2]", "kernel_shape = [3, 3], strides = [2, 1]",
          "kernel_shape = [3, 3], pads = [1, 1, 1, 1], strides = [2, 2], ceil_mode = 1",
          "kernel_shape = [2, 2], dilations = [2, 3]",
          "kernel_shape = [3, 3], auto_pad = \"SAME_LOWER\", strides = [2, 2]"}) {
      CAPTURE(shape, attributes);
      RuleCase layer = Layer("MaxPool", attributes, "$" + shape + " x", "x");
      layer.judgement = kDouble;
      CheckRule(layer);
    }
  }
  RuleCase chosen = Layer("MaxPool", "kernel_shape = [2]", "$[1,2,8] x", "x");
  chosen.text.replace(chosen.text.find("y = "), 1, "y, i");
  chosen.judgement = kDouble;
  CheckRule(chosen);
}

TEST_CASE("global pooling") {
  for (const std::string shape : {"[2,3,4,5]", "[n,c,h,w]", "[2,3,7]"}) {
    RuleCase layer = Layer("GlobalAveragePool", "", "$" + shape + " x", "x");
    layer.text.replace(layer.text.find("<>"), 2, "");
    CheckRule(layer);
    layer.text.replace(layer.text.find("GlobalAverage"), 13, "GlobalMax");
    layer.judgement = {1e-3, 1e-2};
    CheckRule(layer);
  }
}

}  // namespace
}  // namespace sparsefuse::test

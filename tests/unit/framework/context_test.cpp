#include "passes/framework/context.h"

#include <chrono>

#include "onnx_io/text.h"
#include "tests/support/catch.h"

namespace sparsefuse {
namespace {

TEST_CASE("node patterns match whole names") {
  const NodePatterns patterns = {"/head/.*", "fc[0-9]+|out", "a\\.b"};
  for (const char* name : {"/head/MatMul", "/head/", "fc1", "fc12", "out", "a.b"}) {
    INFO(name);
    CHECK(patterns.Match(name));
  }
  for (const char* name : {"x/head/MatMul", "/head", "fc", "fc1x", "xout", "outx", "axb", ""}) {
    INFO(name);
    CHECK_FALSE(patterns.Match(name));
  }
  CHECK_FALSE(NodePatterns().Match("anything"));
}

TEST_CASE("expressions that mean something else here, or nothing, are refused") {
  const std::string nul("a\0b", 3);
  for (const std::string& expression :
       {std::string(), std::string("("), std::string("[a"), std::string("*("),
        std::string("fc\\d+"), std::string("(a)\\1"), std::string(1001, 'a'), nul,
        std::string("((a{100}){100}){100}")}) {
    INFO(expression);
    try {
      NodePatterns{expression};
      FAIL_CHECK("accepted");
    } catch (const UserError& error) {
      CHECK(error.code == ErrorCode::kConfig);
      CHECK(error.Line().find("is not a usable regular expression") != std::string::npos);
    }
  }
  CHECK(NodePatterns{"a{3}"}.Match("aaa"));
}

TEST_CASE("matching is quick whatever the expression and the name") {
  const NodePatterns patterns = {"(a+)+b", "(a|a)*c", "(.*.*.*)*d"};
  const auto start = std::chrono::steady_clock::now();
  CHECK_FALSE(patterns.Match(std::string(2000, 'a')));
  CHECK(std::chrono::steady_clock::now() - start < std::chrono::seconds(20));
}

TEST_CASE("nodes are excluded by name or type, and idle exclusions are found") {
  const Model model = ModelFromText(R"(
      <ir_version: 8, opset_import: ["" : 17]>
      g (float[2] x) => (float[2] y) {
        [first] h = Relu(x)
        [second] y = Tanh(h)
      })");
  Context context;
  context.teacher = &model;
  context.exclude_nodes = {"fir.*", "third"};
  context.exclude_op_types = {"Tanh", "Tan"};
  const std::vector<Node*> nodes = model.graph().Nodes();
  CHECK(context.Excluded(*nodes[0]));
  CHECK(context.Excluded(*nodes[1]));
  CHECK_FALSE(Context().Excluded(*nodes[0]));
  CHECK(IdleExclusions(context) ==
        std::vector<std::string>{"nodes_to_exclude \"third\"", "op_types_to_exclude \"Tan\""});
}

}  // namespace
}  // namespace sparsefuse

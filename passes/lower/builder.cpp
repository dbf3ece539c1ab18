#include "passes/lower/builder.h"

#include <fmt/format.h>

#include <cctype>
#include <memory>

namespace sparsefuse {
namespace {

// onnx.AttributeProto.AttributeType
constexpr int kAttributeFloat = 1;
constexpr int kAttributeInt = 2;

// Larger constants are weights, which are not looked up by value (their keys would be copies).
constexpr size_t kLargestShared = 64 << 10;

}  // namespace

Node* Builder::NewNode(std::string op, std::vector<Value*> inputs, Attributes attributes,
                       std::string domain) {
  std::string prefix(1, static_cast<char>(std::tolower(static_cast<unsigned char>(op[0]))));
  struct NewNode node;
  node.op = std::move(op);
  node.domain = std::move(domain);
  node.inputs = std::move(inputs);
  node.outputs = {graph_.FreshName(prefix)};
  node.attributes = std::move(attributes);
  return graph_.AddNode(std::move(node), before_);
}

Value* Builder::Op(std::string op, std::vector<Value*> inputs, Attributes attributes,
                   std::string domain) {
  return NewNode(std::move(op), std::move(inputs), std::move(attributes), std::move(domain))
      ->output(0);
}

void Builder::OpAs(Value* output, std::string op, std::vector<Value*> inputs, Attributes attributes,
                   std::string domain) {
  Node* node = NewNode(std::move(op), std::move(inputs), std::move(attributes), std::move(domain));
  graph_.MoveOutput(output, node, 0);
}

Value* Builder::Cast(Value* x, DType type) {
  return Op("Cast", {x}, AttributeList("to", static_cast<int64_t>(type)));
}

Value* Builder::If(Value* condition, const Branch& then_branch, const Branch& else_branch) {
  auto then_graph = std::make_unique<Graph>(), else_graph = std::make_unique<Graph>();
  const std::pair<Graph*, const Branch&> parts[] = {{then_graph.get(), then_branch},
                                                    {else_graph.get(), else_branch}};
  Value* result =
      Op("If", {condition},
         AttributeList("then_branch", std::move(then_graph), "else_branch", std::move(else_graph)));
  for (const auto& [graph, branch] : parts) {  // names are fresh now that they have a place
    graph->set_name(graph_.FreshName("branch"));
    Builder inner(*graph, Constants::kNodes);
    graph->AddGraphOutput(branch(inner));
  }
  return result;
}

Value* Builder::Constant(const Tensor& tensor) {
  const std::span<const std::byte> bytes = tensor.bytes();
  if (bytes.size() > kLargestShared) return graph_.AddInitializer(graph_.FreshName("w"), tensor);
  std::string key = fmt::format("{}{}", static_cast<int>(tensor.dtype()), ToString(tensor.dims()));
  key.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  Value*& value = shared_[key];
  if (value) return value;
  if (constants_ == Constants::kInitializers) {
    value = graph_.AddInitializer(graph_.FreshName("c"), tensor);
  } else {
    value = Op("Constant", {}, AttributeList("value", tensor));
  }
  return value;
}

Value* Builder::Ints(std::vector<int64_t> values) {
  return Constant(Tensor::Of<int64_t>({static_cast<int64_t>(values.size())}, values));
}

Value* Builder::Float(float value) { return Constant(Tensor::Scalar(value)); }

Value* Builder::IntsAttribute(std::string_view name) {
  Value* value = Op("Constant", {},
                    AttributeList("value_int", AttributeRef{std::string(name), kAttributeInt}));
  return Op("Reshape", {value, Ints({1})});
}

Value* Builder::FloatAttribute(std::string_view name) {
  return Op("Constant", {},
            AttributeList("value_float", AttributeRef{std::string(name), kAttributeFloat}));
}

}  // namespace sparsefuse

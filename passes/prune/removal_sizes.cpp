#include "passes/prune/removal_sizes.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>
#include <optional>
#include <utility>
#include <vector>

#include "onnx_io/error.h"

namespace sparsefuse {
namespace {

Tensor OfIntegers(DType dtype, const std::vector<int64_t>& values) {
  const Dims dims = {static_cast<int64_t>(values.size())};
  if (dtype == DType::kInt32) {
    return Tensor::Of<int32_t>(dims, std::vector<int32_t>(values.begin(), values.end()));
  }
  return Tensor::Of<int64_t>(dims, values);
}

// Of a vector that shapes are computed in.
DType NumberType(const Value& value) {
  if (const Tensor* tensor = value.constant()) return tensor->dtype();
  const Node* producer = value.producer();
  if (producer && producer->Is("Cast")) return static_cast<DType>(producer->GetInt("to", 0));
  const bool forwards = producer && producer->input(0) && !producer->Is("Shape");
  return forwards ? NumberType(*producer->input(0)) : DType::kInt64;
}

// The length of a vector that Concat joins into a shape; nullopt: not plain to see.
std::optional<int64_t> Length(const Value& value) {
  if (const Tensor* tensor = value.constant()) return tensor->size();
  const Node* producer = value.producer();
  if (!producer) return std::nullopt;
  if (producer->Is("Unsqueeze")) return 1;  // of a scalar, or the result would be no vector
  if (producer->Is("Cast") || producer->Is("Identity")) return Length(*producer->input(0));
  std::optional<int64_t> start, end;
  if (producer->Is("Gather")) {
    const Tensor* indices = producer->constant_input(1);
    return indices ? std::optional(indices->size()) : std::nullopt;
  }
  if (producer->Is("Shape") && producer->attribute("end")) {
    start = producer->GetInt("start", 0);
    end = producer->GetInt("end", 0);
  } else if (producer->Is("Slice") && producer->inputs().size() == 4) {
    const Tensor *from = producer->constant_input(1), *to = producer->constant_input(2);
    if (from && to && from->size() == 1 && to->size() == 1) {
      start = from->ToInts()[0];
      end = to->ToInts()[0];
    }
  }
  // Open ends and ends counted from the back depend on the rank.
  if (!start || !end || *start < 0 || *end < *start || *end > 64) return std::nullopt;
  return *end - *start;
}

// Of a Concat's inputs, as many from the front as are known.
std::vector<int64_t> Lengths(const Node& concat) {
  std::vector<int64_t> lengths;
  for (const Value* input : concat.inputs()) {
    const std::optional<int64_t> length = Length(*input);
    if (!length) break;
    lengths.push_back(*length);
  }
  return lengths;
}

void SetOwnConstant(Node& node, size_t index, Tensor tensor) {
  Graph& graph = *node.graph();
  Value* old = node.input(index);
  graph.SetInput(&node, index,
                 graph.AddInitializer(graph.FreshName(old->name()), std::move(tensor)));
  // Constant nodes stay: blocks may list them.
  const bool unused = old->uses().empty() && !old->is_graph_output() && !old->is_graph_input();
  if (old->is_initializer() && unused) graph.RemoveInitializer(old);
}

// Each piece gets its elements, in a Concat of the node's own.
void SetInConcat(Node& node, size_t index, const std::vector<int64_t>& lengths,
                 const Elements& elements) {
  Graph& graph = *node.graph();
  Node* concat = node.input(index)->producer();
  if (!node.input(index)->has_single_use()) {
    concat = graph.AddNode({.op = "Concat",
                            .inputs = concat->inputs(),
                            .outputs = {graph.FreshName(node.input(index)->name())},
                            .attributes = {}},
                           &node);
    concat->SetAttribute("axis", int64_t{0});
    graph.SetInput(&node, index, concat->output(0));
  }
  for (size_t i = 0, begin = 0; i < lengths.size(); begin += static_cast<size_t>(lengths[i++])) {
    Elements inside;
    for (const auto& [element, number] : elements) {
      const int64_t at = element - static_cast<int64_t>(begin);
      if (at >= 0 && at < lengths[i]) inside[at] = number;
    }
    if (inside.empty()) continue;
    if (static_cast<int64_t>(inside.size()) == lengths[i]) {
      std::vector<int64_t> values;
      for (const auto& entry : inside) values.push_back(entry.second);
      const DType dtype = NumberType(*concat->input(i));
      SetOwnConstant(*concat, i, OfIntegers(dtype, values));
    } else {
      SetInputElements(*concat, i, inside);
    }
  }
}

// Whatever computes the vector, these elements are written over.
void Overwrite(Node& node, size_t index, const Elements& elements) {
  Graph& graph = *node.graph();
  if (graph.model()->opset() < 11) {
    throw UserError(ErrorCode::kUnsupported,
                    fmt::format("input {} is a computed size that has to change", index),
                    "run raise-opset first")
        .InFile(graph.model()->source)
        .At(node.Describe());
  }
  Value* old = node.input(index);
  std::vector<int64_t> positions, numbers;
  for (const auto& [position, number] : elements) {
    positions.push_back(position);
    numbers.push_back(number);
  }
  const std::string& name = old->name();
  Value* at = graph.AddInitializer(graph.FreshName(name + "_positions"),
                                   OfIntegers(DType::kInt64, positions));
  Value* with =
      graph.AddInitializer(graph.FreshName(name + "_sizes"), OfIntegers(NumberType(*old), numbers));
  const Node* scatter = graph.AddNode({.op = "ScatterElements",
                                       .inputs = {old, at, with},
                                       .outputs = {graph.FreshName(name)},
                                       .attributes = {}},
                                      &node);
  graph.SetInput(&node, index, scatter->output(0));
}

}  // namespace

void SetConstant(Value& value, Tensor tensor) {
  if (value.type() && value.type()->has_shape) {
    ValueType type = *value.type();
    type.dims.assign(tensor.dims().begin(), tensor.dims().end());
    value.set_type(std::move(type));
  }
  if (value.is_initializer()) return value.set_initializer(std::move(tensor));
  Node& node = *value.producer();
  for (const char* name : {"value_float", "value_floats", "value_int", "value_ints"}) {
    node.RemoveAttribute(name);
  }
  node.SetAttribute("value", std::move(tensor));
}

void SetAttributeElements(Node& node, const std::string& attribute, const Elements& elements) {
  const Attribute* found = node.attribute(attribute);
  if (found && std::holds_alternative<int64_t>(found->data)) {
    return node.SetAttribute(attribute, elements.at(0));
  }
  std::vector<int64_t> numbers = node.GetInts(attribute, {});
  for (const auto& [position, number] : elements) {
    numbers.at(static_cast<size_t>(position)) = number;
  }
  node.SetAttribute(attribute, std::move(numbers));
}

void SetInputElements(Node& node, size_t index, const Elements& elements) {
  Value* value = node.input(index);
  if (const Tensor* tensor = value->constant()) {
    std::vector<int64_t> numbers = tensor->ToInts();
    for (const auto& [position, number] : elements) {
      numbers.at(static_cast<size_t>(position)) = number;
    }
    Tensor changed = OfIntegers(tensor->dtype(), numbers);
    if (value->has_single_use()) return SetConstant(*value, std::move(changed));
    return SetOwnConstant(node, index, std::move(changed));
  }
  if (value->producer() && value->producer()->Is("Concat")) {
    const std::vector<int64_t> lengths = Lengths(*value->producer());
    if (std::accumulate(lengths.begin(), lengths.end(), int64_t{0}) > elements.rbegin()->first) {
      return SetInConcat(node, index, lengths, elements);
    }
  }
  Overwrite(node, index, elements);
}

void SetEqualSplit(Node& node, int64_t size, const Elements& elements) {
  const size_t parts = node.outputs().size();
  std::vector<int64_t> sizes(parts, size);
  for (const auto& [position, number] : elements) sizes.at(static_cast<size_t>(position)) = number;
  if (std::equal(sizes.begin() + 1, sizes.end(), sizes.begin())) return;
  Graph& graph = *node.graph();
  if (graph.model()->opset() < 13) return node.SetAttribute("split", std::move(sizes));
  node.RemoveAttribute("num_outputs");
  if (node.inputs().size() < 2) graph.AddInput(&node, nullptr);
  graph.SetInput(&node, 1,
                 graph.AddInitializer(graph.FreshName(node.output(0)->name() + "_sizes"),
                                      OfIntegers(DType::kInt64, sizes)));
}

}  // namespace sparsefuse

#include <utility>

#include "onnx_io/mapped_file.h"
#include "onnx_io/model.h"

namespace sparsefuse {

class Model::Cloner {
 public:
  // `parent`: the copy of the node that holds `from`, null for main graphs and function bodies.
  // Recursion is as deep as subgraphs are nested, which the reader bounds.
  std::unique_ptr<Graph> Copy(const Graph& from, Model* model, Node* parent);

 private:
  void CopyValues(const Graph& from, Graph& to);
  void CopyNode(const Node& from, Node& to);
  Attribute::Data CopyData(const Attribute::Data& data, Node& holder);

  std::unordered_map<const Value*, Value*> values_;
};

std::unique_ptr<Graph> Model::Cloner::Copy(const Graph& from, Model* model, Node* parent) {
  auto to = std::make_unique<Graph>();
  to->name_ = from.name_;
  to->model_ = model;
  to->parent_ = parent;
  to->shell_ = from.shell_;
  to->input_shells_ = from.input_shells_;
  to->output_shells_ = from.output_shells_;
  CopyValues(from, *to);
  std::vector<std::pair<const Node*, Node*>> nodes;
  for (const auto& node : from.nodes_) {
    auto copy = std::make_unique<Node>();
    copy->graph_ = to.get();
    nodes.emplace_back(node.get(), copy.get());
    Node* added = copy.get();
    added->position_ = to->nodes_.insert(to->nodes_.end(), std::move(copy));
    for (const Value* output : node->outputs_) {
      Value* value = output ? values_.at(output) : nullptr;
      if (value) value->producer_ = added;
      added->outputs_.push_back(value);
    }
  }
  for (const auto& [old, copy] : nodes) CopyNode(*old, *copy);
  return to;
}

void Model::Cloner::CopyValues(const Graph& from, Graph& to) {
  to.values_.reserve(from.values_.size());
  for (const auto& [name, value] : from.values_) {
    auto copy = std::make_unique<Value>(*value);
    copy->graph_ = &to;
    copy->uses_.clear();
    copy->uses_.reserve(value->uses_.size());
    values_.emplace(value.get(), copy.get());
    to.values_.emplace(name, std::move(copy));
  }
  const auto mapped = [&](const std::vector<Value*>& list) {
    std::vector<Value*> result;
    result.reserve(list.size());
    for (const Value* value : list) result.push_back(value ? values_.at(value) : nullptr);
    return result;
  };
  to.inputs_ = mapped(from.inputs_);
  to.outputs_ = mapped(from.outputs_);
  to.initializers_ = mapped(from.initializers_);
  to.sparse_initializers_ = mapped(from.sparse_initializers_);
  for (const Graph::Annotation& annotation : from.annotations_) {
    to.annotations_.push_back(
        {annotation.value ? values_.at(annotation.value) : nullptr, annotation.shell});
  }
}

void Model::Cloner::CopyNode(const Node& from, Node& to) {
  to.name_ = from.name_;
  to.op_ = from.op_;
  to.domain_ = from.domain_;
  to.overload_ = from.overload_;
  to.shell_ = from.shell_;
  for (const Value* input : from.inputs_) {
    to.graph_->AddInput(&to, input ? values_.at(input) : nullptr);
  }
  for (const Attribute& attribute : from.attributes_) {
    Attribute copy(attribute.name, CopyData(attribute.data, to));
    copy.shell = attribute.shell;
    copy.tensor_shells = attribute.tensor_shells;
    to.attributes_.push_back(std::move(copy));
  }
}

Attribute::Data Model::Cloner::CopyData(const Attribute::Data& data, Node& holder) {
  return std::visit(
      [&](const auto& value) -> Attribute::Data {
        using T = std::remove_cvref_t<decltype(value)>;
        if constexpr (std::is_same_v<T, std::unique_ptr<Graph>>) {
          return Copy(*value, nullptr, &holder);
        } else if constexpr (std::is_same_v<T, std::vector<std::unique_ptr<Graph>>>) {
          std::vector<std::unique_ptr<Graph>> graphs;
          for (const auto& graph : value) graphs.push_back(Copy(*graph, nullptr, &holder));
          return graphs;
        } else {
          return value;
        }
      },
      data);
}

Model Model::Clone() const {
  Model copy;
  Cloner cloner;
  copy.graph_ = cloner.Copy(*graph_, &copy, nullptr);
  for (const auto& function : functions_) {
    auto added = std::make_unique<Function>();
    added->domain = function->domain;
    added->name = function->name;
    added->overload = function->overload;
    added->attributes = function->attributes;
    added->opset_imports = function->opset_imports;
    added->shell = function->shell;
    added->body = cloner.Copy(*function->body, &copy, nullptr);
    copy.functions_.push_back(std::move(added));
  }
  copy.ir_version = ir_version;
  copy.opset_imports = opset_imports;
  copy.metadata = metadata;
  copy.producer_name = producer_name;
  copy.producer_version = producer_version;
  copy.source = source;
  copy.names_ = names_;
  copy.next_suffix_ = next_suffix_;
  copy.files_ = files_;
  copy.shell_ = shell_;
  return copy;
}

}  // namespace sparsefuse

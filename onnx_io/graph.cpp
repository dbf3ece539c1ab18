// Editing of graphs: every function leaves producers, uses and ports consistent.

#include <algorithm>
#include <queue>
#include <utility>

#include "onnx_io/model.h"

namespace sparsefuse {

void Value::RemoveUse(Use use) {
  // From the end: passes remove users in reverse order more often than not.
  for (size_t i = uses_.size(); i-- > 0;) {
    if (uses_[i].node == use.node && uses_[i].index == use.index) {
      uses_.erase(uses_.begin() + static_cast<ptrdiff_t>(i));
      return;
    }
  }
  throw InternalError(fmt::format("\"{}\" does not know of a use", name_));
}

Model* Graph::model() const {
  const Graph* graph = this;
  while (graph->parent_ && graph->parent_->graph_) graph = graph->parent_->graph_;
  return graph->model_;
}

std::vector<Node*> Graph::Nodes() const {
  std::vector<Node*> nodes;
  nodes.reserve(nodes_.size());
  for (const auto& node : nodes_) nodes.push_back(node.get());
  return nodes;
}

std::vector<Value*> Graph::Initializers() const {
  std::vector<Value*> values;
  values.reserve(initializers_.size());
  for (Value* value : initializers_) {
    if (value) values.push_back(value);
  }
  return values;
}

Value* Graph::FindValue(std::string_view name) const {
  const auto found = values_.find(name);
  return found == values_.end() ? nullptr : found->second.get();
}

Value* Graph::FindInScope(std::string_view name) const {
  for (const Graph* graph = this; graph;
       graph = graph->parent_ ? graph->parent_->graph_ : nullptr) {
    if (Value* value = graph->FindValue(name)) return value;
  }
  return nullptr;
}

std::string Graph::FreshName(std::string_view prefix) {
  Model* owner = model();
  SF_CHECK(owner, "the subgraph belongs to no model yet");
  std::string name(prefix);
  if (!name.empty() && owner->names_.insert(name).second) return name;
  for (uint64_t& suffix = owner->next_suffix_[name];;) {
    std::string numbered = fmt::format("{}_{}", prefix, ++suffix);
    if (owner->names_.insert(numbered).second) return numbered;
  }
}

Value* Graph::NewValue(std::string name) {
  SF_CHECK(!name.empty());
  auto [place, added] = values_.try_emplace(name);
  SF_CHECK(added, "a value named \"{}\" exists in the graph", name);
  place->second = std::make_unique<Value>();
  Value* value = place->second.get();
  if (Model* owner = model()) owner->names_.insert(name);
  value->name_ = std::move(name);
  value->graph_ = this;
  return value;
}

void Graph::DeleteValue(Value* value) {
  SF_CHECK(value->uses_.empty() && !value->is_graph_output_ && !value->is_graph_input_,
           "\"{}\" is still needed", value->name_);
  for (size_t i : value->annotations_) annotations_[i] = {};
  values_.erase(values_.find(value->name_));
}

void Graph::Annotate(Value* value, std::shared_ptr<const onnx::ValueInfoProto> shell) {
  if (value) value->annotations_.push_back(annotations_.size());
  annotations_.push_back({value, std::move(shell)});
}

Node* Graph::AddNode(NewNode wanted, Node* before) {
  SF_CHECK(!before || before->graph_ == this);
  auto owned = std::make_unique<Node>();
  Node* node = owned.get();
  node->graph_ = this;
  node->name_ = std::move(wanted.name);
  node->op_ = std::move(wanted.op);
  node->domain_ = std::move(wanted.domain);
  if (Model* owner = model()) owner->names_.insert(node->name_);
  node->position_ = nodes_.insert(before ? before->position_ : nodes_.end(), std::move(owned));
  for (Value* value : wanted.inputs) AddInput(node, value);
  for (std::string& name : wanted.outputs) {
    Value* value = name.empty() ? nullptr : NewValue(std::move(name));
    if (value) {
      value->producer_ = node;
      value->producer_index_ = static_cast<int>(node->outputs_.size());
    }
    node->outputs_.push_back(value);
  }
  for (auto& [name, data] : wanted.attributes) node->SetAttribute(std::move(name), std::move(data));
  return node;
}

Value* Graph::AddInitializer(std::string name, Tensor tensor) {
  SF_CHECK(!tensor.empty_handle(), "\"{}\" without a tensor", name);
  Value* value = NewValue(std::move(name));
  value->initializer_ = std::move(tensor);
  value->initializer_index_ = initializers_.size();
  initializers_.push_back(value);
  return value;
}

Value* Graph::AddGraphInput(std::string name, std::optional<ValueType> type) {
  Value* value = NewValue(std::move(name));
  value->is_graph_input_ = true;
  value->type_ = std::move(type);
  value->type_changed_ = true;
  inputs_.push_back(value);
  input_shells_.push_back(nullptr);
  return value;
}

void Graph::SetInput(Node* node, size_t index, Value* value) {
  SF_CHECK(node->graph_ == this && index < node->inputs_.size());
  const Use use{node, static_cast<int>(index)};
  if (node->inputs_[index] == value) return;
  if (node->inputs_[index]) node->inputs_[index]->RemoveUse(use);
  node->inputs_[index] = value;
  if (value) value->uses_.push_back(use);
}

void Graph::AddInput(Node* node, Value* value) {
  SF_CHECK(node->graph_ == this);
  node->inputs_.push_back(value);
  if (value) value->uses_.push_back({node, static_cast<int>(node->inputs_.size()) - 1});
}

void Graph::ReplaceUses(Value* from, Value* to) {
  if (from == to) return;
  std::vector<Use> uses = std::move(from->uses_);
  from->uses_.clear();
  for (const Use& use : uses) {
    use.node->inputs_[static_cast<size_t>(use.index)] = to;
    to->uses_.push_back(use);
  }
}

void Graph::MoveOutput(Value* value, Node* to, size_t index) {
  SF_CHECK(value->producer_ && value->graph_ == this && to->graph_ == this);
  Node* from = value->producer_;
  if (from == to && value->producer_index_ == static_cast<int>(index)) return;
  if (to->outputs_.size() <= index) to->outputs_.resize(index + 1);
  if (Value* old = to->outputs_[index]) DeleteValue(old);
  from->outputs_[static_cast<size_t>(value->producer_index_)] = nullptr;
  to->outputs_[index] = value;
  value->producer_ = to;
  value->producer_index_ = static_cast<int>(index);
  value->node_constant_.reset();
  to->RefreshConstant();
}

void Graph::RemoveNode(Node* node) {
  SF_CHECK(node->graph_ == this);
  for (const Value* output : node->outputs_) {
    SF_CHECK(!output || (output->uses_.empty() && !output->is_graph_output_),
             "output \"{}\" is still needed", output->name_);
  }
  for (size_t i = 0; i < node->inputs_.size(); ++i) {
    if (node->inputs_[i]) node->inputs_[i]->RemoveUse({node, static_cast<int>(i)});
  }
  for (const Attribute& attribute : node->attributes_) Node::DetachSubgraphs(attribute);
  for (Value* output : node->outputs_) {
    if (output) DeleteValue(output);
  }
  nodes_.erase(node->position_);
}

void Graph::RemoveInitializer(Value* value) {
  SF_CHECK(value->graph_ == this && (value->initializer_ || value->sparse_shell_));
  std::vector<Value*>& list = value->initializer_ ? initializers_ : sparse_initializers_;
  list[value->initializer_index_] = nullptr;
  value->initializer_.reset();
  value->tensor_shell_.reset();
  value->sparse_shell_.reset();
  if (!value->is_graph_input_) DeleteValue(value);
}

void Graph::RemoveGraphInput(Value* value) {
  SF_CHECK(value->graph_ == this && value->is_graph_input_);
  SF_CHECK(value->initializer_ || (value->uses_.empty() && !value->is_graph_output_),
           "input \"{}\" is still needed", value->name_);
  const auto found = std::find(inputs_.begin(), inputs_.end(), value);
  input_shells_.erase(input_shells_.begin() + (found - inputs_.begin()));
  inputs_.erase(found);
  value->is_graph_input_ = false;
  if (!value->initializer_ && !value->sparse_shell_) DeleteValue(value);
}

void Graph::AddGraphOutput(Value* value) {
  SF_CHECK(value->graph_ == this);
  value->is_graph_output_ = true;
  outputs_.push_back(value);
  output_shells_.push_back(nullptr);
}

void Graph::RemoveGraphOutput(Value* value) {
  SF_CHECK(value->graph_ == this && value->is_graph_output_);
  for (size_t i = outputs_.size(); i-- > 0;) {
    if (outputs_[i] != value) continue;
    outputs_.erase(outputs_.begin() + static_cast<std::ptrdiff_t>(i));
    output_shells_.erase(output_shells_.begin() + static_cast<std::ptrdiff_t>(i));
  }
  value->is_graph_output_ = false;
}

std::vector<Node*> Graph::TopologicalOrder() const {
  const std::vector<Node*> nodes = Nodes();
  std::unordered_map<const Node*, size_t> number;
  number.reserve(nodes.size());
  for (size_t i = 0; i < nodes.size(); ++i) number.emplace(nodes[i], i);

  std::vector<std::vector<size_t>> users(nodes.size());  // once per use
  std::vector<size_t> missing(nodes.size(), 0);          // inputs not yet produced
  for (size_t i = 0; i < nodes.size(); ++i) {
    for (const Value* output : nodes[i]->outputs_) {
      if (!output) continue;
      for (const Use& use : output->uses_) {
        const Node* user = use.node;
        while (user->graph_ != this) user = user->graph_->parent_;
        users[i].push_back(number.at(user));
        ++missing[users[i].back()];
      }
    }
  }

  std::priority_queue<size_t, std::vector<size_t>, std::greater<>> ready;
  for (size_t i = 0; i < nodes.size(); ++i) {
    if (missing[i] == 0) ready.push(i);
  }
  std::vector<Node*> order;
  order.reserve(nodes.size());
  while (!ready.empty()) {
    const size_t i = ready.top();
    ready.pop();
    order.push_back(nodes[i]);
    for (size_t user : users[i]) {
      if (--missing[user] == 0) ready.push(user);
    }
  }
  if (order.size() == nodes.size()) return order;

  // Going back from any node left over, always to a producer left over, ends up in a cycle.
  std::vector<size_t> producer(nodes.size());
  size_t at = 0;
  for (size_t i = 0; i < nodes.size(); ++i) {
    if (missing[i] == 0) continue;
    at = i;
    for (size_t user : users[i]) producer[user] = i;
  }
  for (size_t step = 0; step < nodes.size(); ++step) at = producer[at];
  throw UserError(ErrorCode::kModel, "depends on its own output").At(nodes[at]->Describe());
}

}  // namespace sparsefuse

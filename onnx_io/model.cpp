#include "onnx_io/model.h"

#include <algorithm>
#include <utility>

#include "onnx_io/mapped_file.h"

namespace sparsefuse {
namespace {

const char* KindName(const Attribute::Data& data) {
  static constexpr const char* kNames[] = {"another kind", "an integer", "a float",  "a string",
                                           "a tensor",     "a graph",    "integers", "floats",
                                           "strings",      "tensors",    "graphs",   "a reference"};
  return kNames[data.index()];
}

template <typename T>
const T* Find(const Node& node, std::string_view name, const char* expected) {
  const Attribute* attribute = node.attribute(name);
  if (!attribute) return nullptr;
  if (const T* value = std::get_if<T>(&attribute->data)) return value;
  throw UserError(ErrorCode::kModel,
                  fmt::format("attribute \"{}\" is {}, expected {}", Printable(name),
                              KindName(attribute->data), expected))
      .At(node.Describe());
}

// The subgraphs that an attribute holds.
template <typename Visit>
void ForEachSubgraph(const Attribute& attribute, const Visit& visit) {
  if (const auto* graph = std::get_if<std::unique_ptr<Graph>>(&attribute.data)) {
    visit(**graph);
  } else if (const auto* graphs =
                 std::get_if<std::vector<std::unique_ptr<Graph>>>(&attribute.data)) {
    for (const auto& entry : *graphs) visit(*entry);
  }
}

}  // namespace

// --- Value
// ----------------------------------------------------------------------------------------

const Tensor* Value::constant() const {
  if (node_constant_) return &*node_constant_;
  if (!initializer_) return nullptr;
  // Before IR version 4 every initializer had to be listed among the inputs, and meant a constant.
  const Model* model = is_graph_input_ ? graph_->model() : nullptr;
  const bool overridable = is_graph_input_ && !(model && model->ir_version < 4);
  return overridable ? nullptr : &*initializer_;
}

void Value::set_initializer(Tensor tensor) {
  SF_CHECK(initializer_, "\"{}\" is no initializer", name_);
  initializer_ = std::move(tensor);
}

void Value::set_type(std::optional<ValueType> type) {
  type_ = std::move(type);
  type_changed_ = true;
  if (type_ && !is_graph_input_ && !is_graph_output_ && annotations_.empty()) {
    graph_->Annotate(this, nullptr);
  }
}

// --- Node
// -----------------------------------------------------------------------------------------

void Node::set_op(std::string op, std::string domain) {
  op_ = std::move(op);
  domain_ = std::move(domain);
  RefreshConstant();
}

const Attribute* Node::attribute(std::string_view name) const {
  for (const Attribute& attribute : attributes_) {
    if (attribute.name == name) return &attribute;
  }
  return nullptr;
}

int64_t Node::GetInt(std::string_view name, int64_t otherwise) const {
  const auto* value = Find<int64_t>(*this, name, "an integer");
  return value ? *value : otherwise;
}

float Node::GetFloat(std::string_view name, float otherwise) const {
  const auto* value = Find<float>(*this, name, "a float");
  return value ? *value : otherwise;
}

std::string Node::GetString(std::string_view name, std::string_view otherwise) const {
  const auto* value = Find<std::string>(*this, name, "a string");
  return value ? *value : std::string(otherwise);
}

std::vector<int64_t> Node::GetInts(std::string_view name, std::vector<int64_t> otherwise) const {
  const auto* value = Find<std::vector<int64_t>>(*this, name, "integers");
  return value ? *value : std::move(otherwise);
}

void Node::SetAttribute(std::string name, Attribute::Data data) {
  Attribute added(std::move(name), std::move(data));
  Adopt(added);
  const auto old = std::find_if(attributes_.begin(), attributes_.end(),
                                [&](const Attribute& a) { return a.name == added.name; });
  if (old == attributes_.end()) {
    attributes_.push_back(std::move(added));
  } else {
    DetachSubgraphs(*old);
    *old = std::move(added);
  }
  RefreshConstant();
}

void Node::RemoveAttribute(std::string_view name) {
  const auto found = std::find_if(attributes_.begin(), attributes_.end(),
                                  [&](const Attribute& a) { return a.name == name; });
  if (found == attributes_.end()) return;
  DetachSubgraphs(*found);
  attributes_.erase(found);
  RefreshConstant();
}

std::string Node::Describe() const {
  std::string label = name_;
  for (size_t i = 0; label.empty() && i < outputs_.size(); ++i) {
    if (outputs_[i]) label = outputs_[i]->name();
  }
  return fmt::format("node \"{}\" ({}{}{})", Printable(label), Printable(domain_),
                     domain_.empty() ? "" : ".", Printable(op_));
}

void Node::Adopt(const Attribute& attribute) {
  ForEachSubgraph(attribute, [&](Graph& graph) {
    SF_CHECK(!graph.parent_ && !graph.model_, "the subgraph already has a place");
    graph.parent_ = this;
    Model* model = graph_ ? graph_->model() : nullptr;
    if (!model) return;
    ForEachGraph(graph, [&](Graph& inner) {
      for (const auto& [name, value] : inner.values_) model->names_.insert(name);
      for (const auto& node : inner.nodes_) model->names_.insert(node->name_);
    });
  });
}

void Node::DetachSubgraphs(const Attribute& attribute) {
  ForEachSubgraph(attribute, [](Graph& graph) {
    ForEachGraph(graph, [](Graph& inner) {
      for (const auto& node : inner.nodes_) {
        for (size_t i = 0; i < node->inputs_.size(); ++i) {
          if (node->inputs_[i]) node->inputs_[i]->RemoveUse({node.get(), static_cast<int>(i)});
        }
      }
    });
  });
}

void Node::RefreshConstant() {
  Value* output = outputs_.empty() ? nullptr : outputs_[0];
  if (!output) return;
  output->node_constant_.reset();
  if (!Is("Constant") || attributes_.size() != 1) return;
  const auto length = [](const auto& list) { return Dims{static_cast<int64_t>(list.size())}; };
  const Attribute::Data& data = attributes_[0].data;
  if (const auto* tensor = std::get_if<Tensor>(&data)) {
    output->node_constant_ = *tensor;
  } else if (const auto* number = std::get_if<float>(&data)) {
    output->node_constant_ = Tensor::Scalar(*number);
  } else if (const auto* integer = std::get_if<int64_t>(&data)) {
    output->node_constant_ = Tensor::Scalar(*integer);
  } else if (const auto* text = std::get_if<std::string>(&data)) {
    output->node_constant_ = Tensor::OfStrings({}, {*text});
  } else if (const auto* numbers = std::get_if<std::vector<float>>(&data)) {
    output->node_constant_ = Tensor::Of(length(*numbers), *numbers);
  } else if (const auto* integers = std::get_if<std::vector<int64_t>>(&data)) {
    output->node_constant_ = Tensor::Of(length(*integers), *integers);
  } else if (const auto* texts = std::get_if<std::vector<std::string>>(&data)) {
    output->node_constant_ = Tensor::OfStrings(length(*texts), *texts);
  }
}

// --- Model
// ----------------------------------------------------------------------------------------

Model::Model() : graph_(std::make_unique<Graph>()) {
  graph_->name_ = "main";
  graph_->model_ = this;
}

Model::~Model() = default;

Model::Model(Model&& other) noexcept { *this = std::move(other); }

Model& Model::operator=(Model&& other) noexcept {
  graph_ = std::move(other.graph_);
  functions_ = std::move(other.functions_);
  ir_version = other.ir_version;
  opset_imports = std::move(other.opset_imports);
  metadata = std::move(other.metadata);
  producer_name = std::move(other.producer_name);
  producer_version = std::move(other.producer_version);
  source = std::move(other.source);
  names_ = std::move(other.names_);
  next_suffix_ = std::move(other.next_suffix_);
  files_ = std::move(other.files_);
  shell_ = std::move(other.shell_);
  if (graph_) graph_->model_ = this;
  for (const auto& function : functions_) function->body->model_ = this;
  return *this;
}

Function* Model::FindFunction(std::string_view domain, std::string_view name) const {
  for (const auto& function : functions_) {
    if (function->domain == domain && function->name == name) return function.get();
  }
  return nullptr;
}

Function* Model::AddFunction(std::string domain, std::string name,
                             const std::vector<std::string>& inputs,
                             std::vector<std::string> attributes,
                             std::map<std::string, int64_t> imports) {
  SF_CHECK(!FindFunction(domain, name), "{}.{} exists", domain, name);
  auto function = std::make_unique<Function>();
  function->domain = std::move(domain);
  function->name = std::move(name);
  function->attributes = std::move(attributes);
  function->opset_imports = std::move(imports);
  function->body = std::make_unique<Graph>();
  function->body->model_ = this;
  for (const std::string& input : inputs) function->body->AddGraphInput(input);
  functions_.push_back(std::move(function));
  return functions_.back().get();
}

int64_t Model::opset() const {
  const auto found = opset_imports.find("");
  if (found != opset_imports.end()) return found->second;
  return ir_version < 3 ? 1 : 0;
}

uint64_t Model::WeightBytes() const {
  std::unordered_set<const std::byte*> seen;
  uint64_t total = 0;
  const auto add = [&](const Tensor& tensor) {
    if (!tensor.bytes().empty() && seen.insert(tensor.bytes().data()).second) {
      total += tensor.bytes().size();
    }
    if (tensor.dtype() == DType::kString) {
      for (const std::string& text : tensor.strings()) total += text.size();
    }
  };
  ForEachGraph(*this, [&](const Graph& graph) {
    for (const Value* value : graph.Initializers()) add(*value->initializer());
    for (const Node* node : graph.Nodes()) {
      const Value* output = node->Is("Constant") ? node->output(0) : nullptr;
      if (output && output->constant()) add(*output->constant());
    }
  });
  return total;
}

void ForEachGraph(Graph& root, const std::function<void(Graph&)>& visit) {
  std::vector<Graph*> stack = {&root};
  while (!stack.empty()) {
    Graph* graph = stack.back();
    stack.pop_back();
    visit(*graph);
    const size_t first = stack.size();
    for (Node* node : graph->Nodes()) {
      for (const Attribute& attribute : node->attributes()) {
        ForEachSubgraph(attribute, [&](Graph& inner) { stack.push_back(&inner); });
      }
    }
    std::reverse(stack.begin() + static_cast<ptrdiff_t>(first), stack.end());
  }
}

void ForEachGraph(const Graph& root, const std::function<void(const Graph&)>& visit) {
  ForEachGraph(const_cast<Graph&>(root), [&](Graph& graph) { visit(graph); });
}

void ForEachGraph(Model& model, const std::function<void(Graph&)>& visit) {
  ForEachGraph(model.graph(), visit);
  for (const auto& function : model.functions()) ForEachGraph(*function->body, visit);
}

void ForEachGraph(const Model& model, const std::function<void(const Graph&)>& visit) {
  ForEachGraph(const_cast<Model&>(model), [&](Graph& graph) { visit(graph); });
}

}  // namespace sparsefuse

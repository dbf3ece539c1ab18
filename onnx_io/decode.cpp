// Protobuf messages → the model in memory. Payloads are moved out; what remains of each message is
// its shell, a copy where cleared fields would otherwise keep their memory.

#include <utility>

#include "onnx_io/codec.h"

namespace sparsefuse {
namespace {

UserError ModelError(std::string what) { return UserError(ErrorCode::kModel, std::move(what)); }

std::string Quoted(std::string_view kind, std::string_view name) {
  return fmt::format("{} \"{}\"", kind, Printable(name));
}

// A name given by the file. Others (protobuf's own readers in other languages, C strings) refuse or
// cut what is refused here.
void CheckName(std::string_view name, std::string_view kind) {
  constexpr size_t kMaxName = 64 << 10;
  if (name.size() > kMaxName) {
    throw UserError(ErrorCode::kLimit,
                    fmt::format("name has {} bytes, the limit is {}", name.size(), kMaxName))
        .At(Quoted(kind, name));
  }
  if (name.find('\0') != std::string_view::npos || !IsUtf8(name)) {
    throw ModelError("name is no valid text (UTF-8 without NUL)").At(Quoted(kind, name));
  }
}

bool IsKnownType(int32_t elem_type) {
  const auto dtype = static_cast<DType>(elem_type);
  return dtype == DType::kString || DTypeBits(dtype) > 0;
}

std::optional<ValueType> DecodeType(const onnx::ValueInfoProto& info) {
  if (!info.has_type()) return std::nullopt;
  ValueType type;
  if (!info.type().has_tensor_type()) return type;
  const onnx::TypeProto::Tensor& tensor = info.type().tensor_type();
  if (IsKnownType(tensor.elem_type())) type.dtype = static_cast<DType>(tensor.elem_type());
  type.has_shape = tensor.has_shape();
  for (const auto& dim : tensor.shape().dim()) {
    // Some converters write −1 for "unknown".
    if (dim.has_dim_value() && dim.dim_value() >= 0) {
      type.dims.emplace_back(dim.dim_value());
    } else {
      type.dims.emplace_back(dim.dim_param());
    }
  }
  return type;
}

// A port's type is what data must fit, so it must be understood.
void CheckPortType(const onnx::ValueInfoProto& info, std::string_view kind) {
  const onnx::TypeProto& type = info.type();
  if (type.has_tensor_type() && type.tensor_type().elem_type() != 0 &&
      !IsKnownType(type.tensor_type().elem_type())) {
    throw UserError(ErrorCode::kUnsupported,
                    fmt::format("has the unknown element type {}", type.tensor_type().elem_type()))
        .At(Quoted(kind, info.name()));
  }
}

// What is left of a tensor once its payload is taken, or null where nothing is.
std::shared_ptr<const onnx::TensorProto> TensorShell(const onnx::TensorProto& proto,
                                                     bool name_is_owned) {
  const bool needed = proto.has_doc_string() || proto.metadata_props_size() > 0 ||
                      proto.has_data_location() || !proto.unknown_fields().empty() ||
                      (proto.has_name() && !name_is_owned);
  return needed ? std::make_shared<const onnx::TensorProto>(proto) : nullptr;
}

std::map<std::string, int64_t> DecodeImports(
    const google::protobuf::RepeatedPtrField<onnx::OperatorSetIdProto>& imports) {
  std::map<std::string, int64_t> result;
  for (const auto& import : imports) {
    const std::string domain(NormalDomain(import.domain()));
    const auto [place, added] = result.emplace(domain, import.version());
    if (!added && place->second != import.version()) {
      throw ModelError(fmt::format("domain \"{}\" is imported in versions {} and {}",
                                   Printable(domain), place->second, import.version()));
    }
    if (import.version() < 1) {
      throw ModelError(fmt::format("domain \"{}\" is imported in version {}", Printable(domain),
                                   import.version()));
    }
  }
  return result;
}

}  // namespace

class ModelCodec::Decoder {
 public:
  Decoder(Model& model, ExternalFiles& files)
      : model_(model), files_(files), shell_tensors_(files) {}

  void DecodeModel(onnx::ModelProto&& proto);

 private:
  void DecodeGraph(onnx::GraphProto&& proto, Graph& graph, int depth);
  void DecodeFunction(onnx::FunctionProto&& proto);
  void DecodeInputs(onnx::GraphProto& proto, Graph& graph);
  void DecodeInitializers(onnx::GraphProto& proto, Graph& graph);
  void DecodeOutputs(onnx::GraphProto& proto, Graph& graph);
  void DecodeAnnotations(google::protobuf::RepeatedPtrField<onnx::ValueInfoProto>& infos,
                         Graph& graph);
  // All nodes of a graph: first what they define, then what they use, then their attributes.
  void DecodeNodes(google::protobuf::RepeatedPtrField<onnx::NodeProto>& protos, Graph& graph,
                   int depth);
  void DecodeAttribute(onnx::AttributeProto&& proto, Node& node, int depth);
  Attribute::Data DecodeData(onnx::AttributeProto& proto, Attribute& attribute, Node& node,
                             int depth);
  std::unique_ptr<Graph> DecodeSubgraph(onnx::GraphProto&& proto, Node& node, int depth);

  Model& model_;
  ExternalFiles& files_;
  ShellTensors shell_tensors_;
};

void ModelCodec::Decoder::DecodeModel(onnx::ModelProto&& proto) {
  model_.ir_version = proto.ir_version();
  model_.producer_name = proto.producer_name();
  model_.producer_version = proto.producer_version();
  model_.opset_imports = DecodeImports(proto.opset_import());
  for (const auto& entry : proto.metadata_props()) {
    model_.metadata.emplace_back(entry.key(), entry.value());
  }
  DecodeGraph(std::move(*proto.mutable_graph()), *model_.graph_, 0);
  proto.clear_graph();
  for (onnx::FunctionProto& function : *proto.mutable_functions()) {
    DecodeFunction(std::move(function));
  }
  proto.clear_functions();
  for (onnx::TrainingInfoProto& training : *proto.mutable_training_info()) {
    if (training.has_initialization()) shell_tensors_.Settle(*training.mutable_initialization());
    if (training.has_algorithm()) shell_tensors_.Settle(*training.mutable_algorithm());
  }
  model_.shell_ = std::make_shared<const onnx::ModelProto>(proto);
}

void ModelCodec::Decoder::DecodeGraph(onnx::GraphProto&& proto, Graph& graph, int depth) {
  graph.name_ = proto.name();
  DecodeInputs(proto, graph);
  DecodeInitializers(proto, graph);
  DecodeNodes(*proto.mutable_node(), graph, depth);
  DecodeOutputs(proto, graph);
  DecodeAnnotations(*proto.mutable_value_info(), graph);
  proto.clear_input();
  proto.clear_initializer();
  proto.clear_sparse_initializer();
  proto.clear_node();
  proto.clear_output();
  proto.clear_value_info();
  graph.shell_ = std::make_shared<const onnx::GraphProto>(proto);
}

void ModelCodec::Decoder::DecodeInputs(onnx::GraphProto& proto, Graph& graph) {
  for (onnx::ValueInfoProto& info : *proto.mutable_input()) {
    CheckName(info.name(), "input");
    CheckPortType(info, "input");
    if (info.name().empty()) throw ModelError("a graph input has no name");
    if (graph.FindValue(info.name())) {
      throw ModelError("appears twice among the inputs").At(Quoted("input", info.name()));
    }
    Value* value = graph.NewValue(info.name());
    value->is_graph_input_ = true;
    value->type_ = DecodeType(info);
    graph.inputs_.push_back(value);
    graph.input_shells_.push_back(std::make_shared<onnx::ValueInfoProto>(std::move(info)));
  }
}

void ModelCodec::Decoder::DecodeInitializers(onnx::GraphProto& proto, Graph& graph) {
  const auto value_named = [&](const std::string& name) {
    CheckName(name, "initializer");
    if (name.empty()) throw ModelError("an initializer has no name");
    Value* value = graph.FindValue(name);
    if (value && (value->initializer_ || value->sparse_shell_)) {
      throw ModelError("appears twice").At(Quoted("initializer", name));
    }
    return value ? value : graph.NewValue(name);
  };
  for (onnx::TensorProto& tensor : *proto.mutable_initializer()) {
    Value* value = value_named(tensor.name());
    try {
      value->initializer_ = DecodeTensor(tensor, files_);
    } catch (UserError& error) {
      throw error.At(Quoted("initializer", tensor.name()));
    }
    value->tensor_shell_ = TensorShell(tensor, true);
    value->initializer_index_ = graph.initializers_.size();
    graph.initializers_.push_back(value);
  }
  for (onnx::SparseTensorProto& sparse : *proto.mutable_sparse_initializer()) {
    Value* value = value_named(sparse.values().name());
    try {
      shell_tensors_.Settle(sparse);
    } catch (UserError& error) {
      throw error.At(Quoted("sparse initializer", value->name()));
    }
    value->sparse_shell_ = std::make_shared<onnx::SparseTensorProto>(std::move(sparse));
    value->initializer_index_ = graph.sparse_initializers_.size();
    graph.sparse_initializers_.push_back(value);
  }
}

void ModelCodec::Decoder::DecodeNodes(google::protobuf::RepeatedPtrField<onnx::NodeProto>& protos,
                                      Graph& graph, int depth) {
  std::vector<Node*> nodes;
  nodes.reserve(static_cast<size_t>(protos.size()));
  for (onnx::NodeProto& proto : protos) {
    NewNode wanted{.op = proto.op_type(),
                   .domain = std::string(NormalDomain(proto.domain())),
                   .name = proto.name()};
    Node* node = graph.AddNode(std::move(wanted));
    node->overload_ = proto.overload();
    CheckName(node->name_, "node");
    nodes.push_back(node);
    for (const std::string& name : proto.output()) {
      CheckName(name, "output");
      if (!name.empty() && graph.FindValue(name)) {
        throw ModelError(
            fmt::format("output \"{}\" is already defined in the graph", Printable(name)))
            .At(node->Describe());
      }
      Value* value = name.empty() ? nullptr : graph.NewValue(name);
      if (value) {
        value->producer_ = node;
        value->producer_index_ = static_cast<int>(node->outputs_.size());
      }
      node->outputs_.push_back(value);
    }
  }
  for (size_t i = 0; i < nodes.size(); ++i) {
    onnx::NodeProto& proto = protos[static_cast<int>(i)];
    for (const std::string& name : proto.input()) {
      Value* value = name.empty() ? nullptr : graph.FindInScope(name);
      if (!value && !name.empty()) {
        throw ModelError(fmt::format("input {} \"{}\" is defined nowhere", nodes[i]->inputs_.size(),
                                     Printable(name)))
            .At(nodes[i]->Describe());
      }
      graph.AddInput(nodes[i], value);
    }
    for (onnx::AttributeProto& attribute : *proto.mutable_attribute()) {
      DecodeAttribute(std::move(attribute), *nodes[i], depth);
    }
    nodes[i]->RefreshConstant();
    proto.clear_input();
    proto.clear_output();
    proto.clear_attribute();
    nodes[i]->shell_ = std::make_shared<const onnx::NodeProto>(proto);
  }
}

void ModelCodec::Decoder::DecodeAttribute(onnx::AttributeProto&& proto, Node& node, int depth) {
  Attribute attribute(proto.name(), {});
  if (node.attribute(attribute.name)) {
    throw ModelError(fmt::format("attribute \"{}\" appears twice", Printable(attribute.name)))
        .At(node.Describe());
  }
  try {
    attribute.data = DecodeData(proto, attribute, node, depth);
  } catch (UserError& error) {
    throw error.At(fmt::format("{}: attribute \"{}\"", node.Describe(), Printable(attribute.name)));
  }
  attribute.shell = std::make_shared<const onnx::AttributeProto>(proto);
  node.attributes_.push_back(std::move(attribute));
}

// Scalars and lists are copied: the shell keeps them, so that they come back in every detail.
Attribute::Data ModelCodec::Decoder::DecodeData(onnx::AttributeProto& proto, Attribute& attribute,
                                                Node& node, int depth) {
  using P = onnx::AttributeProto;
  if (proto.has_ref_attr_name()) {
    return AttributeRef{proto.ref_attr_name(), static_cast<int>(proto.type())};
  }
  // IR version 1 had no type: the field in use tells it.
  P::AttributeType type = proto.type();
  if (!proto.has_type()) {
    type = proto.has_f()          ? P::FLOAT
           : proto.has_i()        ? P::INT
           : proto.has_s()        ? P::STRING
           : proto.has_t()        ? P::TENSOR
           : proto.has_g()        ? P::GRAPH
           : proto.floats_size()  ? P::FLOATS
           : proto.ints_size()    ? P::INTS
           : proto.strings_size() ? P::STRINGS
           : proto.tensors_size() ? P::TENSORS
           : proto.graphs_size()  ? P::GRAPHS
                                  : P::UNDEFINED;
  }
  const auto take_tensor = [&](onnx::TensorProto& tensor) {
    Tensor decoded = DecodeTensor(tensor, files_);
    attribute.tensor_shells.push_back(TensorShell(tensor, false));
    return decoded;
  };
  const bool stray = (proto.has_t() && type != P::TENSOR) || (proto.has_g() && type != P::GRAPH) ||
                     (proto.tensors_size() && type != P::TENSORS) ||
                     (proto.graphs_size() && type != P::GRAPHS);
  if (stray) throw ModelError("holds values of several kinds");
  switch (type) {
    case P::FLOAT:
      return proto.f();
    case P::INT:
      return static_cast<int64_t>(proto.i());
    case P::STRING:
      return proto.s();
    case P::FLOATS:
      return std::vector<float>(proto.floats().begin(), proto.floats().end());
    case P::INTS:
      return std::vector<int64_t>(proto.ints().begin(), proto.ints().end());
    case P::STRINGS:
      return std::vector<std::string>(proto.strings().begin(), proto.strings().end());
    case P::TENSOR: {
      if (!proto.has_t()) throw ModelError("is a tensor attribute without a tensor");
      Tensor tensor = take_tensor(*proto.mutable_t());
      proto.clear_t();
      return tensor;
    }
    case P::TENSORS: {
      std::vector<Tensor> tensors;
      for (onnx::TensorProto& tensor : *proto.mutable_tensors()) {
        tensors.push_back(take_tensor(tensor));
      }
      proto.clear_tensors();
      return tensors;
    }
    case P::GRAPH: {
      if (!proto.has_g()) throw ModelError("is a graph attribute without a graph");
      auto graph = DecodeSubgraph(std::move(*proto.mutable_g()), node, depth);
      proto.clear_g();
      return graph;
    }
    case P::GRAPHS: {
      std::vector<std::unique_ptr<Graph>> graphs;
      for (onnx::GraphProto& graph : *proto.mutable_graphs()) {
        graphs.push_back(DecodeSubgraph(std::move(graph), node, depth));
      }
      proto.clear_graphs();
      return graphs;
    }
    default:
      shell_tensors_.Settle(proto);
      return {};
  }
}

std::unique_ptr<Graph> ModelCodec::Decoder::DecodeSubgraph(onnx::GraphProto&& proto, Node& node,
                                                           int depth) {
  if (depth >= kMaxSubgraphDepth) {
    throw UserError(ErrorCode::kLimit,
                    fmt::format("subgraphs are nested deeper than {}", kMaxSubgraphDepth));
  }
  auto graph = std::make_unique<Graph>();
  graph->parent_ = &node;
  DecodeGraph(std::move(proto), *graph, depth + 1);
  return graph;
}

void ModelCodec::Decoder::DecodeOutputs(onnx::GraphProto& proto, Graph& graph) {
  for (onnx::ValueInfoProto& info : *proto.mutable_output()) {
    CheckPortType(info, "output");
    Value* value = graph.FindValue(info.name());
    if (!value) {
      const bool outer = graph.FindInScope(info.name());
      throw ModelError(outer ? "is a value of an outer graph; a subgraph must produce its outputs"
                             : "is defined nowhere")
          .At(Quoted("graph output", info.name()));
    }
    if (!value->type_) value->type_ = DecodeType(info);
    value->is_graph_output_ = true;
    graph.outputs_.push_back(value);
    graph.output_shells_.push_back(std::make_shared<onnx::ValueInfoProto>(std::move(info)));
  }
}

void ModelCodec::Decoder::DecodeAnnotations(
    google::protobuf::RepeatedPtrField<onnx::ValueInfoProto>& infos, Graph& graph) {
  for (onnx::ValueInfoProto& info : infos) {
    Value* value = graph.FindValue(info.name());
    if (value && !value->type_) value->type_ = DecodeType(info);
    if (!value) model_.names_.insert(info.name());
    graph.Annotate(value, std::make_shared<onnx::ValueInfoProto>(std::move(info)));
  }
}

void ModelCodec::Decoder::DecodeFunction(onnx::FunctionProto&& proto) {
  auto function = std::make_unique<Function>();
  function->domain = NormalDomain(proto.domain());
  function->name = proto.name();
  function->overload = proto.overload();
  CheckName(function->domain, "function domain");
  CheckName(function->name, "function");
  const std::string place =
      fmt::format("function \"{}.{}\"", Printable(function->domain), Printable(function->name));
  for (const auto& other : model_.functions_) {
    if (other->domain == function->domain && other->name == function->name &&
        other->overload == function->overload) {
      throw ModelError("is defined twice").At(place);
    }
  }
  function->attributes.assign(proto.attribute().begin(), proto.attribute().end());
  function->body = std::make_unique<Graph>();
  Graph& body = *function->body;
  body.model_ = &model_;
  try {
    function->opset_imports = DecodeImports(proto.opset_import());
    for (const std::string& name : proto.input()) {
      CheckName(name, "input");
      if (name.empty() || body.FindValue(name)) throw ModelError("inputs must have distinct names");
      body.AddGraphInput(name);
    }
    DecodeNodes(*proto.mutable_node(), body, 0);
    for (const std::string& name : proto.output()) {
      Value* value = body.FindValue(name);
      if (!value) {
        throw ModelError(fmt::format("output \"{}\" is defined nowhere", Printable(name)));
      }
      body.AddGraphOutput(value);
    }
    DecodeAnnotations(*proto.mutable_value_info(), body);
    for (onnx::AttributeProto& attribute : *proto.mutable_attribute_proto()) {
      shell_tensors_.Settle(attribute);
    }
  } catch (UserError& error) {
    error.where = error.where.empty() ? place : place + ": " + error.where;
    throw;
  }
  proto.clear_input();
  proto.clear_output();
  proto.clear_node();
  proto.clear_value_info();
  function->shell = std::make_shared<const onnx::FunctionProto>(proto);
  model_.functions_.push_back(std::move(function));
}

Model ModelCodec::Decode(onnx::ModelProto&& proto, ExternalFiles& files) {
  Model model;
  Decoder(model, files).DecodeModel(std::move(proto));
  return model;
}

}  // namespace sparsefuse

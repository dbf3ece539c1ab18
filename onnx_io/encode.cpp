// The model in memory → protobuf messages. A field is written only where it differs from what the
// shell already says: absent stays absent, "ai.onnx" stays "ai.onnx".

#include <utility>

#include "onnx_io/codec.h"

namespace sparsefuse {
namespace {

using Imports = google::protobuf::RepeatedPtrField<onnx::OperatorSetIdProto>;
using Entries = google::protobuf::RepeatedPtrField<onnx::StringStringEntryProto>;

template <typename Proto>
Proto FromShell(const std::shared_ptr<const Proto>& shell) {
  return shell ? *shell : Proto();
}

// Entries that still hold stay as written, in their order; new domains follow.
void EncodeImports(const std::map<std::string, int64_t>& wanted, Imports& imports) {
  Imports old;
  old.Swap(&imports);
  std::map<std::string, int64_t> left = wanted;
  for (onnx::OperatorSetIdProto& import : old) {
    const auto found = wanted.find(std::string(NormalDomain(import.domain())));
    if (found == wanted.end()) continue;
    if (import.version() != found->second) import.set_version(found->second);
    imports.Add(std::move(import));
    left.erase(found->first);
  }
  for (const auto& [domain, version] : left) {
    onnx::OperatorSetIdProto* import = imports.Add();
    import->set_domain(domain);
    import->set_version(version);
  }
}

void EncodeMetadata(const std::vector<std::pair<std::string, std::string>>& wanted,
                    Entries& entries) {
  const auto same = [](const auto& pair, const onnx::StringStringEntryProto& entry) {
    return pair.first == entry.key() && pair.second == entry.value();
  };
  if (std::equal(wanted.begin(), wanted.end(), entries.begin(), entries.end(), same)) return;
  entries.Clear();
  for (const auto& [key, value] : wanted) {
    onnx::StringStringEntryProto* entry = entries.Add();
    entry->set_key(key);
    entry->set_value(value);
  }
}

void EncodeType(const ValueType& type, onnx::TypeProto& proto) {
  onnx::TypeProto::Tensor& tensor = *proto.mutable_tensor_type();
  tensor.set_elem_type(static_cast<int32_t>(type.dtype));
  if (!type.has_shape) return;
  tensor.mutable_shape();
  for (const auto& dim : type.dims) {
    onnx::TensorShapeProto::Dimension& written = *tensor.mutable_shape()->add_dim();
    if (const int64_t* size = std::get_if<int64_t>(&dim)) {
      written.set_dim_value(*size);
    } else if (const auto& symbol = std::get<std::string>(dim); !symbol.empty()) {
      written.set_dim_param(symbol);
    }
  }
}

}  // namespace

class ModelCodec::Encoder {
 public:
  explicit Encoder(const PlaceTensor& place) : place_(place) {}

  void EncodeModel(const Model& model, onnx::ModelProto& proto);

 private:
  void EncodeGraph(const Graph& graph, onnx::GraphProto& proto);
  void EncodeFunction(const Function& function, onnx::FunctionProto& proto);
  void EncodeNode(const Node& node, onnx::NodeProto& proto);
  void EncodeAttribute(const Attribute& attribute, onnx::AttributeProto& proto);
  void EncodeInfo(const Value& value, const std::shared_ptr<const onnx::ValueInfoProto>& shell,
                  onnx::ValueInfoProto& proto);
  void EncodeAnnotations(const Graph& graph,
                         google::protobuf::RepeatedPtrField<onnx::ValueInfoProto>& infos);

  const PlaceTensor& place_;
};

void ModelCodec::Encoder::EncodeModel(const Model& model, onnx::ModelProto& proto) {
  proto = FromShell(model.shell_);
  if (proto.ir_version() != model.ir_version) proto.set_ir_version(model.ir_version);
  if (proto.producer_name() != model.producer_name) proto.set_producer_name(model.producer_name);
  if (proto.producer_version() != model.producer_version) {
    proto.set_producer_version(model.producer_version);
  }
  EncodeImports(model.opset_imports, *proto.mutable_opset_import());
  EncodeMetadata(model.metadata, *proto.mutable_metadata_props());
  EncodeGraph(*model.graph_, *proto.mutable_graph());
  for (const auto& function : model.functions_) EncodeFunction(*function, *proto.add_functions());
}

void ModelCodec::Encoder::EncodeGraph(const Graph& graph, onnx::GraphProto& proto) {
  proto = FromShell(graph.shell_);
  if (proto.name() != graph.name_) proto.set_name(graph.name_);
  for (size_t i = 0; i < graph.inputs_.size(); ++i) {
    EncodeInfo(*graph.inputs_[i], graph.input_shells_[i], *proto.add_input());
  }
  for (const Value* value : graph.initializers_) {
    if (!value) continue;
    onnx::TensorProto& tensor = *proto.add_initializer();
    tensor = FromShell(value->tensor_shell_);
    tensor.set_name(value->name_);
    EncodeTensor(*value->initializer_, value->name_, place_, tensor);
  }
  for (const Value* value : graph.sparse_initializers_) {
    if (value) *proto.add_sparse_initializer() = *value->sparse_shell_;
  }
  for (const auto& node : graph.nodes_) EncodeNode(*node, *proto.add_node());
  for (size_t i = 0; i < graph.outputs_.size(); ++i) {
    EncodeInfo(*graph.outputs_[i], graph.output_shells_[i], *proto.add_output());
  }
  EncodeAnnotations(graph, *proto.mutable_value_info());
}

void ModelCodec::Encoder::EncodeInfo(const Value& value,
                                     const std::shared_ptr<const onnx::ValueInfoProto>& shell,
                                     onnx::ValueInfoProto& proto) {
  proto = FromShell(shell);
  if (!shell) proto.set_name(value.name_);
  if (shell && !value.type_changed_) return;
  proto.clear_type();
  if (value.type_) EncodeType(*value.type_, *proto.mutable_type());
}

void ModelCodec::Encoder::EncodeAnnotations(
    const Graph& graph, google::protobuf::RepeatedPtrField<onnx::ValueInfoProto>& infos) {
  for (const Graph::Annotation& annotation : graph.annotations_) {
    if (!annotation.value) {
      if (annotation.shell) *infos.Add() = *annotation.shell;
    } else if (annotation.value->type_ || !annotation.value->type_changed_) {
      EncodeInfo(*annotation.value, annotation.shell, *infos.Add());
    }
  }
}

void ModelCodec::Encoder::EncodeNode(const Node& node, onnx::NodeProto& proto) {
  proto = FromShell(node.shell_);
  for (const Value* input : node.inputs_) proto.add_input(input ? input->name_ : "");
  for (const Value* output : node.outputs_) proto.add_output(output ? output->name_ : "");
  if (proto.name() != node.name_) proto.set_name(node.name_);
  if (proto.op_type() != node.op_) proto.set_op_type(node.op_);
  if (NormalDomain(proto.domain()) != node.domain_) proto.set_domain(node.domain_);
  if (proto.overload() != node.overload_) proto.set_overload(node.overload_);
  for (const Attribute& attribute : node.attributes_) {
    EncodeAttribute(attribute, *proto.add_attribute());
  }
}

void ModelCodec::Encoder::EncodeAttribute(const Attribute& attribute, onnx::AttributeProto& proto) {
  proto = FromShell(attribute.shell);
  if (!attribute.shell) proto.set_name(attribute.name);
  // Kinds without tensors and graphs are complete in the shell.
  const bool from_shell = attribute.shell != nullptr;
  const auto type = [&](onnx::AttributeProto::AttributeType kind) {
    if (!from_shell) proto.set_type(kind);
    return !from_shell;
  };
  using P = onnx::AttributeProto;
  const auto tensor = [&](const Tensor& value, size_t i, onnx::TensorProto& written) {
    if (i < attribute.tensor_shells.size()) written = FromShell(attribute.tensor_shells[i]);
    EncodeTensor(value, "", place_, written);
  };
  std::visit(
      [&](const auto& data) {
        using T = std::remove_cvref_t<decltype(data)>;
        if constexpr (std::is_same_v<T, int64_t>) {
          if (type(P::INT)) proto.set_i(data);
        } else if constexpr (std::is_same_v<T, float>) {
          if (type(P::FLOAT)) proto.set_f(data);
        } else if constexpr (std::is_same_v<T, std::string>) {
          if (type(P::STRING)) proto.set_s(data);
        } else if constexpr (std::is_same_v<T, std::vector<int64_t>>) {
          if (type(P::INTS)) proto.mutable_ints()->Add(data.begin(), data.end());
        } else if constexpr (std::is_same_v<T, std::vector<float>>) {
          if (type(P::FLOATS)) proto.mutable_floats()->Add(data.begin(), data.end());
        } else if constexpr (std::is_same_v<T, std::vector<std::string>>) {
          if (type(P::STRINGS)) proto.mutable_strings()->Add(data.begin(), data.end());
        } else if constexpr (std::is_same_v<T, AttributeRef>) {
          if (type(static_cast<P::AttributeType>(data.type))) proto.set_ref_attr_name(data.name);
        } else if constexpr (std::is_same_v<T, Tensor>) {
          type(P::TENSOR);
          tensor(data, 0, *proto.mutable_t());
        } else if constexpr (std::is_same_v<T, std::vector<Tensor>>) {
          type(P::TENSORS);
          for (size_t i = 0; i < data.size(); ++i) tensor(data[i], i, *proto.add_tensors());
        } else if constexpr (std::is_same_v<T, std::unique_ptr<Graph>>) {
          type(P::GRAPH);
          EncodeGraph(*data, *proto.mutable_g());
        } else if constexpr (std::is_same_v<T, std::vector<std::unique_ptr<Graph>>>) {
          type(P::GRAPHS);
          for (const auto& graph : data) EncodeGraph(*graph, *proto.add_graphs());
        }
      },
      attribute.data);
}

void ModelCodec::Encoder::EncodeFunction(const Function& function, onnx::FunctionProto& proto) {
  proto = FromShell(function.shell);
  if (proto.name() != function.name) proto.set_name(function.name);
  if (NormalDomain(proto.domain()) != function.domain) proto.set_domain(function.domain);
  if (proto.overload() != function.overload) proto.set_overload(function.overload);
  proto.mutable_attribute()->Assign(function.attributes.begin(), function.attributes.end());
  EncodeImports(function.opset_imports, *proto.mutable_opset_import());
  for (const Value* input : function.body->inputs_) proto.add_input(input->name_);
  for (const Value* output : function.body->outputs_) proto.add_output(output->name_);
  for (const auto& node : function.body->nodes_) EncodeNode(*node, *proto.add_node());
  EncodeAnnotations(*function.body, *proto.mutable_value_info());
}

void ModelCodec::Encode(const Model& model, const PlaceTensor& place, onnx::ModelProto& proto) {
  Encoder(place).EncodeModel(model, proto);
}

}  // namespace sparsefuse

#include "tests/kernels/node_model.h"

namespace sparsefuse::test {
namespace {

void Declare(onnx::ValueInfoProto& value, const std::string& name,
             onnx::TensorProto::DataType type) {
  value.set_name(name);
  value.mutable_type()->mutable_tensor_type()->set_elem_type(type);
}

}  // namespace

NodeModel::NodeModel(const std::string& op, const std::string& domain,
                     onnx::TensorProto::DataType type) {
  model_.set_ir_version(8);
  onnx::OperatorSetIdProto* standard = model_.add_opset_import();
  standard->set_version(17);
  if (!domain.empty()) {
    onnx::OperatorSetIdProto* import = model_.add_opset_import();
    import->set_domain(domain);
    import->set_version(1);
  }
  onnx::GraphProto& graph = *model_.mutable_graph();
  graph.set_name("graph");
  Declare(*graph.add_input(), "X", type);
  Declare(*graph.add_output(), "Y", type);
  onnx::NodeProto& node = *graph.add_node();
  node.set_name("node");
  node.set_op_type(op);
  node.set_domain(domain);
  node.add_input("X");
  node.add_output("Y");
}

NodeModel& NodeModel::RawConstant(const std::string& name, onnx::TensorProto::DataType type,
                                  const std::vector<int64_t>& dims, const std::string& bytes) {
  onnx::TensorProto& tensor = *model_.mutable_graph()->add_initializer();
  tensor.set_name(name);
  tensor.set_data_type(type);
  for (int64_t dim : dims) tensor.add_dims(dim);
  tensor.set_raw_data(bytes);
  node().add_input(name);
  return *this;
}

NodeModel& NodeModel::Int(const std::string& name, int64_t value) {
  onnx::AttributeProto& attribute = *node().add_attribute();
  attribute.set_name(name);
  attribute.set_type(onnx::AttributeProto::INT);
  attribute.set_i(value);
  return *this;
}

NodeModel& NodeModel::Float(const std::string& name, float value) {
  onnx::AttributeProto& attribute = *node().add_attribute();
  attribute.set_name(name);
  attribute.set_type(onnx::AttributeProto::FLOAT);
  attribute.set_f(value);
  return *this;
}

Ort::SessionOptions Options(int threads, const std::string& library) {
  Ort::SessionOptions options;
  options.SetIntraOpNumThreads(threads);
  if (!library.empty()) options.RegisterCustomOpsLibrary(library.c_str());
  return options;
}

Ort::Env& Environment() {
  static Ort::Env env(ORT_LOGGING_LEVEL_FATAL, "test");
  return env;
}

}  // namespace sparsefuse::test

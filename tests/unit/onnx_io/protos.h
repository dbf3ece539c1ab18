// Hand-made protobuf models, valid and not.

#ifndef SPARSEFUSE_TESTS_UNIT_ONNX_IO_PROTOS_H_
#define SPARSEFUSE_TESTS_UNIT_ONNX_IO_PROTOS_H_

#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "onnx/onnx-ml.pb.h"
#include "onnx_io/reader.h"
#include "tests/support/catch.h"
#include "tests/support/error_of.h"

namespace sparsefuse::test {

inline void SetType(onnx::ValueInfoProto& info, std::string_view name,
                    std::vector<int64_t> dims = {4}) {
  info.set_name(std::string(name));
  auto& tensor = *info.mutable_type()->mutable_tensor_type();
  tensor.set_elem_type(onnx::TensorProto::FLOAT);
  tensor.mutable_shape();
  for (int64_t dim : dims) tensor.mutable_shape()->add_dim()->set_dim_value(dim);
}

inline onnx::NodeProto& AddNode(onnx::GraphProto& graph, std::string_view op,
                                std::vector<std::string> inputs, std::vector<std::string> outputs) {
  onnx::NodeProto& node = *graph.add_node();
  node.set_op_type(std::string(op));
  for (const std::string& name : inputs) node.add_input(name);
  for (const std::string& name : outputs) node.add_output(name);
  return node;
}

inline onnx::TensorProto FloatTensor(std::string_view name, std::vector<int64_t> dims,
                                     const std::vector<float>& values) {
  onnx::TensorProto tensor;
  tensor.set_name(std::string(name));
  tensor.set_data_type(onnx::TensorProto::FLOAT);
  for (int64_t dim : dims) tensor.add_dims(dim);
  tensor.set_raw_data(values.data(), values.size() * sizeof(float));
  return tensor;
}

// y = x + W, all float[4].
inline onnx::ModelProto SmallProto() {
  onnx::ModelProto model;
  model.set_ir_version(8);
  onnx::OperatorSetIdProto& opset = *model.add_opset_import();
  opset.set_domain("");
  opset.set_version(17);
  onnx::GraphProto& graph = *model.mutable_graph();
  graph.set_name("g");
  SetType(*graph.add_input(), "x");
  *graph.add_initializer() = FloatTensor("W", {4}, {1, 2, 3, 4});
  AddNode(graph, "Add", {"x", "W"}, {"y"}).set_name("add");
  SetType(*graph.add_output(), "y");
  return model;
}

inline std::span<const std::byte> AsBytes(const std::string& text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

inline Model Load(const onnx::ModelProto& proto) {
  return ReadModelFromBytes(AsBytes(proto.SerializeAsString()));
}

// The error of a small model after `change`.
inline std::string LoadError(ErrorCode code, const std::function<void(onnx::ModelProto&)>& change) {
  onnx::ModelProto proto = SmallProto();
  change(proto);
  return ErrorOf(code, [&] { Load(proto); });
}

}  // namespace sparsefuse::test

#endif  // SPARSEFUSE_TESTS_UNIT_ONNX_IO_PROTOS_H_

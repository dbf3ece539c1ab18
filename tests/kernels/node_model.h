// One-node ONNX models and sessions over them, for tests and benchmarks of operators.

#ifndef SPARSEFUSE_TESTS_KERNELS_NODE_MODEL_H_
#define SPARSEFUSE_TESTS_KERNELS_NODE_MODEL_H_

#include <onnx/onnx-ml.pb.h>
#include <onnxruntime_cxx_api.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace sparsefuse::test {

// A model of one node with the inputs "X" (a graph input of free shape) and then `constants`, and
// the output "Y". The node and the graph stay open for changes until Bytes().
class NodeModel {
 public:
  NodeModel(const std::string& op, const std::string& domain,
            onnx::TensorProto::DataType type = onnx::TensorProto::FLOAT);

  template <typename T>
  NodeModel& Constant(const std::string& name, onnx::TensorProto::DataType type,
                      const std::vector<int64_t>& dims, const std::vector<T>& values) {
    return RawConstant(name, type, dims,
                       {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T)});
  }
  NodeModel& RawConstant(const std::string& name, onnx::TensorProto::DataType type,
                         const std::vector<int64_t>& dims, const std::string& bytes);
  NodeModel& Int(const std::string& name, int64_t value);
  NodeModel& Float(const std::string& name, float value);

  onnx::NodeProto& node() { return *model_.mutable_graph()->mutable_node(0); }
  onnx::ModelProto& model() { return model_; }
  std::string Bytes() const { return model_.SerializeAsString(); }

 private:
  onnx::ModelProto model_;
};

// Session options with `threads` threads and, unless empty, an operator library.
Ort::SessionOptions Options(int threads, const std::string& library = {});

// The process's environment, quiet.
Ort::Env& Environment();

}  // namespace sparsefuse::test

#endif  // SPARSEFUSE_TESTS_KERNELS_NODE_MODEL_H_

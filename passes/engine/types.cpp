#include <unordered_set>

#include "passes/engine/engine.h"

namespace sparsefuse {
namespace {

ValueType TypeOf(const Tensor& tensor) {
  ValueType type{tensor.dtype(), true, {}};
  for (const int64_t dim : tensor.dims()) type.dims.emplace_back(dim);
  return type;
}

}  // namespace

Model WithOutputs(const Model& model, std::span<const std::string> values) {
  Model exposed = model.Clone();
  for (const std::string& name : values) {
    Value* value = exposed.graph().FindValue(name);
    SF_CHECK(value, "no value \"{}\" in the main graph", name);
    if (!value->is_graph_output()) exposed.graph().AddGraphOutput(value);
  }
  return exposed;
}

std::vector<Port> InferTypes(const Model& model, const SessionOptions& options) {
  std::vector<Port> ports;
  std::vector<std::string> computed;
  for (const Value* input : model.graph().inputs()) {
    if (input->type()) ports.push_back({input->name(), *input->type()});
  }
  for (const Value* value : model.graph().Initializers()) {
    if (!value->is_graph_input()) ports.push_back({value->name(), TypeOf(*value->initializer())});
  }
  for (const Node* node : model.graph().Nodes()) {
    for (const Value* value : node->outputs()) {
      if (value) computed.push_back(value->name());
    }
  }
  SessionOptions plain = options;
  plain.optimize = false;  // no value may be fused away
  const Session session(WithOutputs(model, computed), plain);
  for (const Port& port : session.outputs()) {
    const Value* value = model.graph().FindValue(port.name);
    if (!value || !value->producer() || port.type.dtype == DType::kUndefined) continue;
    ports.push_back(port);
    // The engine shows scalars like unknown ranks; the model may know better.
    const std::optional<ValueType>& declared = value->type();
    if (!port.type.has_shape && declared && declared->has_shape && declared->dims.empty()) {
      ports.back().type.has_shape = true;
    }
  }
  return ports;
}

}  // namespace sparsefuse

#include "tests/support/linear_model.h"

namespace sparsefuse::test {

QuantizedWeight WeightOf(const LinearLayer& layer) {
  QuantizedWeight weight;
  weight.inputs = layer.shape.inputs;
  weight.outputs = layer.shape.outputs;
  weight.encoding = layer.shape.encoding;
  weight.codes = layer.codes;
  weight.scale_groups = layer.shape.scale_groups;
  weight.scale_base = layer.scale_base;
  weight.scale_codes = layer.scale_code;
  weight.quad = layer.quad;
  weight.group_ptr = layer.group_ptr;
  weight.smooth = layer.smooth;
  weight.gate = layer.gate;
  return weight;
}

Model EmptyModel(const LinearLayer& layer, DType dtype) {
  Model model;
  model.opset_imports[""] = 21;
  model.graph().AddGraphInput("x",
                              ValueType{dtype, true, {std::string("rows"), layer.shape.inputs}});
  return model;
}

Node* AppendLinear(Model& model, const LinearLayer& layer, Activation activation) {
  Graph& graph = model.graph();
  Builder builder(graph);
  Value* x = graph.FindValue("x");
  Value* y = builder.Op("Identity", {x});  // whose output is taken over
  Node* placeholder = y->producer();
  graph.AddGraphOutput(y);
  const QuantizedWeight weight = WeightOf(layer);
  EmitLinear(model, builder, x, StoreLayout1(builder, weight), weight, layer.bias, activation, y);
  graph.RemoveNode(placeholder);
  Verify(model);
  return y->producer();
}

}  // namespace sparsefuse::test

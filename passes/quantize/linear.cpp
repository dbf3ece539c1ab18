#include "passes/quantize/linear.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>

#include "kernels/linear/pack.h"
#include "passes/lower/builder.h"

namespace sparsefuse {
namespace {

// The N values of a constant that broadcasts along the last axis of [..., N] without adding axes:
// [N], [1, …, 1, N] (up to `max_rank` axes), or one element. Nothing otherwise.
std::optional<std::vector<float>> RowVector(const Tensor& tensor, int64_t outputs,
                                            int64_t max_rank) {
  if (tensor.dtype() != DType::kFloat || tensor.rank() > max_rank) return std::nullopt;
  if (tensor.size() == 1) {
    return std::vector<float>(static_cast<size_t>(outputs), tensor.ToFloats()[0]);
  }
  if (tensor.size() != outputs || tensor.dims().back() != outputs) return std::nullopt;
  return tensor.ToFloats();
}

// A MatMul's weight may be spelt Transpose(constant), as exporters do for tied embeddings.
struct ConstantWeight {
  Value* value = nullptr;
  Node* transpose = nullptr;
};

ConstantWeight FindWeight(Value* operand) {
  if (!operand) return {};
  if (operand->constant()) return {operand, nullptr};
  Node* producer = operand->producer();
  if (producer && producer->Is("Transpose") && producer->constant_input(0) &&
      producer->constant_input(0)->rank() == 2 &&
      producer->GetInts("perm", {1, 0}) == std::vector<int64_t>{1, 0}) {
    return {producer->input(0), producer};
  }
  return {};
}

// Folds the Add behind a MatMul when its other operand is a constant row. The row must not have
// more axes than the product, whose rank is at least 2 for every X that is not a vector.
void FoldBiasAdd(LinearLayer& layer) {
  Value* product = layer.output;
  if (!product->has_single_use()) return;
  Node* add = product->uses()[0].node;
  if (!add->Is("Add") || add->graph() != layer.product->graph()) return;
  const Tensor* other = add->constant_input(add->input(0) == product ? 1 : 0);
  if (!other) return;
  std::optional<std::vector<float>> bias = RowVector(*other, layer.outputs, 1);
  if (!bias) return;
  layer.bias_add = add;
  layer.bias = std::move(*bias);
  layer.output = add->output(0);
}

// Empty if `layer` can be quantised, else why not.
std::string Fill(Node& node, LinearLayer& layer) {
  const bool gemm = node.Is("Gemm");
  layer.product = &node;
  layer.input = node.input(0);
  layer.output = node.output(0);
  const ConstantWeight found = FindWeight(node.input(1));
  if (!found.value && node.input(1)->producer() &&
      node.input(1)->producer()->Is("DequantizeLinear")) {
    return "quantised already";
  }
  if (!found.value) {
    return node.constant_input(0) ? "the constant is the left operand" : "weight is not constant";
  }
  const Tensor& weight = *found.value->constant();
  if (weight.rank() != 2) return fmt::format("weight has {} axes, not 2", weight.rank());
  if (weight.dtype() != DType::kFloat) {
    return fmt::format("weight is {}, not float", DTypeName(weight.dtype()));
  }
  layer.weight = found.value;
  layer.transpose = found.transpose;
  const bool transpose_b = gemm && node.GetInt("transB", 0) != 0;
  layer.weight_is_rows = transpose_b != (found.transpose != nullptr);
  layer.inputs = weight.dims()[layer.weight_is_rows ? 1 : 0];
  layer.outputs = weight.dims()[layer.weight_is_rows ? 0 : 1];
  if (layer.inputs < kMinLinearInputs || layer.outputs < kMinLinearOutputs) {
    return fmt::format("too small: {}→{}, worth it from {}→{}", layer.inputs, layer.outputs,
                       kMinLinearInputs, kMinLinearOutputs);
  }
  if (layer.inputs > kMaxInputs || layer.outputs > kMaxOutputs) {
    return fmt::format("too large for format 1: {}→{}", layer.inputs, layer.outputs);
  }
  if (!gemm) {
    FoldBiasAdd(layer);
    return "";
  }
  layer.weight_factor = node.GetFloat("alpha", 1.0f);
  if (node.GetInt("transA", 0) != 0) return "X is read transposed";
  if (!node.input(2)) return "";
  if (!node.constant_input(2)) return "Gemm's C is not constant";
  std::optional<std::vector<float>> bias = RowVector(*node.constant_input(2), layer.outputs, 2);
  if (!bias) return "Gemm's C is not one row";
  const float beta = node.GetFloat("beta", 1.0f);
  for (float& b : *bias) b *= beta;
  layer.bias = std::move(*bias);
  return "";
}

// The convolution quantiser takes the Gemm behind a CNN, too.
bool IsReported(const Node& node, const PassStats& stats) {
  PassStats own;
  own.Skip(node, "");
  return std::any_of(stats.findings.begin(), stats.findings.end(), [&](const Finding& finding) {
    return finding.subject == own.findings[0].subject;
  });
}

}  // namespace

std::vector<float> LinearLayer::WeightRows() const {
  std::vector<float> rows = weight->constant()->ToFloats();
  if (!weight_is_rows) {
    std::vector<float> turned(rows.size());
    for (int64_t k = 0; k < inputs; ++k) {
      for (int64_t n = 0; n < outputs; ++n) {
        turned[static_cast<size_t>(n * inputs + k)] = rows[static_cast<size_t>(k * outputs + n)];
      }
    }
    rows = std::move(turned);
  }
  if (weight_factor != 1) {
    for (float& w : rows) w *= weight_factor;
  }
  return rows;
}

bool UntransposeInputs(Model& model) {
  Graph& graph = model.graph();
  bool changed = false;
  for (Node* node : graph.Nodes()) {
    if (!node->Is("Gemm") || node->GetInt("transA", 0) == 0 || !node->constant_input(1)) continue;
    Builder builder(graph);
    builder.InsertBefore(node);
    Attributes swap;
    swap.emplace_back("perm", std::vector<int64_t>{1, 0});
    graph.SetInput(node, 0, builder.Op("Transpose", {node->input(0)}, std::move(swap)));
    node->RemoveAttribute("transA");
    changed = true;
  }
  return changed;
}

std::vector<LinearLayer> FindLinearLayers(Model& model, const Context& context, PassStats& stats) {
  std::vector<LinearLayer> layers;
  for (Node* node : model.graph().TopologicalOrder()) {
    if (!node->Is("MatMul") && !node->Is("Gemm")) continue;
    LinearLayer layer;
    std::string reason = context.Excluded(*node) ? "excluded" : Fill(*node, layer);
    if (reason.empty()) {
      layers.push_back(std::move(layer));
    } else if (!IsReported(*node, stats) &&
               !(node->Is("MatMul") && reason == "weight is not constant")) {
      stats.Skip(*node, std::move(reason));  // a product of two activations is no linear layer
    }
  }
  ForEachGraph(model, [&](Graph& graph) {
    if (&graph == &model.graph()) return;
    for (Node* node : graph.Nodes()) {
      if ((node->Is("MatMul") || node->Is("Gemm")) && FindWeight(node->input(1)).value) {
        stats.Skip(*node, "inside a subgraph or function");
      }
    }
  });
  return layers;
}

}  // namespace sparsefuse

#include "passes/statistics/matrix.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <vector>

#include "kernels/base/float16.h"
#include "passes/cleanup/edits.h"

namespace sparsefuse {
namespace {

using RowMajor = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

bool IsSupported(DType dtype) {
  return dtype == DType::kFloat || dtype == DType::kDouble || dtype == DType::kFloat16 ||
         dtype == DType::kBfloat16;
}

std::vector<double> ToDoubles(const Tensor& tensor) {
  if (tensor.dtype() == DType::kDouble) {
    std::vector<double> values(static_cast<size_t>(tensor.size()));
    // Tensors in mapped files lie at any offset.
    if (!values.empty()) std::memcpy(values.data(), tensor.bytes().data(), tensor.bytes().size());
    return values;
  }
  const std::vector<float> floats = tensor.ToFloats();
  return {floats.begin(), floats.end()};
}

template <typename T, typename Convert>
Tensor Converted(DType dtype, Dims dims, std::span<const double> values, const Convert& convert) {
  std::vector<T> elements;
  elements.reserve(values.size());
  for (const double value : values) elements.push_back(convert(static_cast<float>(value)));
  return Tensor::FromBytes(dtype, std::move(dims), std::as_bytes(std::span<const T>(elements)));
}

// One value for each of `outputs`: a constant [outputs] or a single number.
bool IsRow(const Tensor& tensor, int64_t most_axes, int64_t outputs) {
  if (!IsSupported(tensor.dtype()) || tensor.rank() > most_axes) return false;
  return tensor.size() == 1 || (tensor.size() == outputs && tensor.dims().back() == outputs);
}

// The weight's value, perhaps behind a Transpose, and whether there is one.
struct Operand {
  const Value* constant = nullptr;
  const Node* transpose = nullptr;
};

Operand FindOperand(const Value* value) {
  if (!value || value->constant()) return {value, nullptr};
  const Node* producer = value->producer();
  if (producer && producer->Is("Transpose") && producer->constant_input(0) &&
      producer->constant_input(0)->rank() == 2 &&
      producer->GetInts("perm", {1, 0}) == std::vector<int64_t>{1, 0}) {
    return {producer->input(0), producer};
  }
  return {};
}

// Empty, or why `node` is no matrix.
std::string ReadWeight(const Node& node, MatrixView& view) {
  const bool conv = node.Is("Conv");
  const Operand operand = FindOperand(node.input(1));
  if (!operand.constant || (conv && operand.transpose)) {
    return node.constant_input(0) ? "the constant is the left operand" : "weight is not constant";
  }
  if (node.constant_input(0)) return "both operands are constant";
  const Tensor& weight = *operand.constant->constant();
  if (!IsSupported(weight.dtype())) {
    return fmt::format("weight is {}, not float", DTypeName(weight.dtype()));
  }
  if (conv ? weight.rank() < 3 : weight.rank() != 2) {
    return fmt::format("weight has {} axes", weight.rank());
  }
  if (weight.size() == 0) return "weight is empty";
  view.weight = operand.constant;
  const bool transpose_b = node.Is("Gemm") && node.GetInt("transB", 0) != 0;
  view.weight_is_rows = conv || transpose_b != (operand.transpose != nullptr);
  view.outputs = weight.dims()[view.weight_is_rows ? 0 : 1];
  view.inputs = weight.size() / view.outputs;
  view.kernel = conv ? view.inputs / weight.dims()[1] : 1;
  return "";
}

// Empty, or why `node` is no matrix.
std::string ReadBias(const Node& node, MatrixView& view) {
  if (node.Is("MatMul")) {
    const Value* product = node.output(0);
    if (!product->has_single_use() || product->uses()[0].node->graph() != node.graph()) return "";
    const Node* add = product->uses()[0].node;
    if (!add->Is("Add")) return "";
    const Value* other = add->input(add->input(0) == product ? 1 : 0);
    // A row with more axes than the product would add axes to it.
    if (!other->constant() || !IsRow(*other->constant(), 1, view.outputs)) return "";
    view.bias_add = add;
    view.bias = other;
    view.output = add->output(0);
    return "";
  }
  const Value* bias = node.input(2);
  if (!bias) return "";
  if (!bias->constant()) return "bias is not constant";
  if (!IsRow(*bias->constant(), node.Is("Gemm") ? 2 : 1, view.outputs)) {
    return "bias is not one row";
  }
  view.bias = bias;
  return "";
}

// MatMul → Add(bias) in its place: the Add takes over the output's name.
void AppendBias(Node& product, Tensor bias) {
  Graph& graph = *product.graph();
  Value* output = product.output(0);
  const std::vector<Node*> nodes = graph.Nodes();
  const auto next = std::find(nodes.begin(), nodes.end(), &product) + 1;
  Node* before = next == nodes.end() ? nullptr : *next;
  const std::string& name = output->name();
  Value* row = graph.AddInitializer(graph.FreshName(name + "_bias"), std::move(bias));
  // The node stays, for others may point to it; so its new output comes from a node that goes.
  Node* donor = graph.AddNode(
      {.op = "Identity", .inputs = {row}, .outputs = {graph.FreshName(name + "_product")}}, before);
  Value* inner = donor->output(0);
  Node* add = graph.AddNode(
      {.op = "Add", .inputs = {inner, row}, .outputs = {graph.FreshName(name + "_sum")}}, before);
  graph.MoveOutput(output, add, 0);
  graph.MoveOutput(inner, &product, 0);
  graph.RemoveNode(donor);
}

void SetBias(Node& node, const MatrixView& view, const Eigen::VectorXd& bias, DType dtype) {
  if (!view.bias && bias.isZero(0)) return;
  Tensor row = ToTensor(dtype, {view.outputs}, {bias.data(), static_cast<size_t>(bias.size())});
  if (!node.Is("MatMul")) {
    ReplaceConstant(node, 2, "bias", std::move(row));
    if (node.Is("Gemm")) node.RemoveAttribute("beta");
  } else if (view.bias_add) {
    Node& add = *node.output(0)->uses()[0].node;
    ReplaceConstant(add, add.input(0) == node.output(0) ? 1 : 0, "bias", std::move(row));
  } else {
    AppendBias(node, std::move(row));
  }
}

}  // namespace

Tensor ToTensor(DType dtype, Dims dims, std::span<const double> values) {
  switch (dtype) {
    case DType::kDouble:
      return Tensor::Of<double>(std::move(dims), values);
    case DType::kFloat16:
      return Converted<uint16_t>(dtype, std::move(dims), values, FloatToFloat16);
    case DType::kBfloat16:
      return Converted<uint16_t>(dtype, std::move(dims), values, FloatToBfloat16);
    default:
      SF_CHECK(dtype == DType::kFloat, "no tensor of type {}", DTypeName(dtype));
      return Converted<float>(dtype, std::move(dims), values, std::identity());
  }
}

std::optional<MatrixView> AsMatrix(const Node& node, std::string* reason) {
  const auto fill = [&](MatrixView& view) -> std::string {
    if (!node.Is("MatMul") && !node.Is("Gemm") && !node.Is("Conv")) return "no matrix product";
    if (node.graph()->parent() || node.graph() != &node.graph()->model()->graph()) {
      return "inside a subgraph or function";
    }
    if (const int64_t groups = node.Is("Conv") ? node.GetInt("group", 1) : 1; groups != 1) {
      return fmt::format("{} groups", groups);
    }
    view.node = &node;
    view.input = node.input(0);
    view.output = node.output(0);
    if (node.Is("Gemm")) {
      view.weight_factor = node.GetFloat("alpha", 1);
      view.bias_factor = node.GetFloat("beta", 1);
    }
    std::string problem = ReadWeight(node, view);
    return problem.empty() ? ReadBias(node, view) : problem;
  };
  MatrixView view;
  std::string problem = fill(view);
  if (problem.empty()) return view;
  if (reason) *reason = std::move(problem);
  return std::nullopt;
}

Eigen::MatrixXd Weight(const MatrixView& view) {
  const std::vector<double> values = ToDoubles(*view.weight->constant());
  const int64_t n = view.inputs, m = view.outputs;
  if (!view.weight_is_rows) {
    return view.weight_factor * Eigen::Map<const RowMajor>(values.data(), n, m);
  }
  return view.weight_factor * Eigen::Map<const Eigen::MatrixXd>(values.data(), n, m);
}

Eigen::VectorXd Bias(const MatrixView& view) {
  if (!view.bias) return Eigen::VectorXd::Zero(view.outputs);
  const std::vector<double> values = ToDoubles(*view.bias->constant());
  if (values.size() == 1) {
    return Eigen::VectorXd::Constant(view.outputs, view.bias_factor * values[0]);
  }
  return view.bias_factor * Eigen::Map<const Eigen::VectorXd>(values.data(), view.outputs);
}

void SetWeight(Model& model, const MatrixView& view, const Eigen::MatrixXd& weight,
               const Eigen::VectorXd& bias) {
  SF_CHECK(weight.rows() == view.inputs && weight.cols() == view.outputs &&
           bias.size() == view.outputs);
  SF_CHECK(weight.allFinite() && bias.allFinite());
  const Tensor& old = *view.weight->constant();
  const DType dtype = old.dtype();
  const auto laid_out = [&](Dims dims, bool rows) {
    Eigen::MatrixXd columns = rows ? weight : Eigen::MatrixXd(weight.transpose());
    return ToTensor(dtype, std::move(dims), {columns.data(), static_cast<size_t>(columns.size())});
  };
  Node& node = *model.graph().FindValue(view.node->output(0)->name())->producer();
  SF_CHECK(&node == view.node, "the view is of another model");
  Node* transpose = node.input(1) == view.weight ? nullptr : node.input(1)->producer();
  if (!transpose) {
    ReplaceConstant(node, 1, "weight", laid_out(old.dims(), view.weight_is_rows));
  } else if (transpose->output(0)->has_single_use()) {
    ReplaceConstant(*transpose, 0, "weight", laid_out(old.dims(), view.weight_is_rows));
  } else {  // as the Transpose's other readers keep theirs, this one needs none
    ReplaceConstant(node, 1, "weight",
                    laid_out({old.dims()[1], old.dims()[0]}, !view.weight_is_rows));
  }
  node.RemoveAttribute("alpha");
  SetBias(node, view, bias, dtype);
}

MatrixView SameMatrix(const Model& copy, const MatrixView& view) {
  // A bias may have become an Add, which took the name of the product's output.
  const Node* node = copy.graph().FindValue(view.node->output(0)->name())->producer();
  std::optional<MatrixView> same = AsMatrix(*node);
  if (!same && node->input(0)) same = AsMatrix(*node->input(0)->producer());
  if (!same) throw InternalError("a product is none any more");
  return *same;
}

}  // namespace sparsefuse

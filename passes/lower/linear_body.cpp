#include "passes/lower/linear_body.h"

#include <cmath>
#include <utility>
#include <vector>

#include "passes/lower/dynamic_quantize.h"
#include "passes/lower/layout1.h"

namespace sparsefuse {
namespace {

// Each of these returns Σ_g scale·t of docs/formats.md, float [..., N], from scaled rows.

// One scale row a panel.
Value* PanelwiseProduct(Builder& b, const Layout1& layout, Value* scaled) {
  Value* weight = layout.sparse() ? SparseMatrix(b, layout)
                                  : b.Op("Transpose", {DenseRows(b, layout)},
                                         AttributeList("perm", std::vector<int64_t>{1, 0}));
  return b.Op("Mul", {IntegerProduct(b, RowCodes(b, scaled), weight), PanelScales(b, layout)});
}

// Inputs are divided among the scale rows: codes [rows, M, inputs of a row].
Value* GroupwiseDenseProduct(Builder& b, const Layout1& layout, Value* scale_groups,
                             Value* scaled) {
  Value* width = b.Op("Mul", {scale_groups, b.Ints({kGroupInputs})});
  Value* rows = DivideUp(b, layout.inputs, width);
  Value* padding =
      Concat(b, {b.Ints({0, 0, 0}), b.Op("Sub", {b.Op("Mul", {rows, width}), layout.inputs})});

  Value* padded =
      b.Op("Pad", {DenseRows(b, layout), padding, b.Constant(Tensor::Scalar<int8_t>(0))});
  Value* weight = b.Op("Reshape", {padded, Concat(b, {layout.outputs, rows, width})});
  weight = b.Op("Transpose", {weight}, AttributeList("perm", std::vector<int64_t>{1, 2, 0}));

  Value* flat = b.Op("Reshape", {RowCodes(b, scaled), Concat(b, {b.Ints({-1}), layout.inputs})});
  padded = b.Op("Pad", {flat, padding, b.Constant(Tensor::Scalar<uint8_t>(128))});
  Value* codes = b.Op("Reshape", {padded, Concat(b, {b.Ints({-1}), rows, width})});
  codes = b.Op("Transpose", {codes}, AttributeList("perm", std::vector<int64_t>{1, 0, 2}));

  Value* product = b.Op("Mul", {IntegerProduct(b, codes, weight), DenseScales(b, layout, rows)});
  Value* sum = b.Op("ReduceSum", {product, b.Ints({0})}, AttributeList("keepdims", 0));
  Value* leading = b.Op("Shape", {scaled}, AttributeList("end", -1));
  return b.Op("Reshape", {sum, Concat(b, {leading, layout.outputs})},
              AttributeList("allowzero", 1));
}

Value* GroupwiseSparseProduct(Builder& b, const Layout1& layout, Value* scale_groups,
                              Value* scaled) {
  Value* weight = ScaledSparseMatrix(b, layout, scale_groups);
  return b.Op("MatMul", {b.Op("Round", {scaled}), weight});
}

// Whichever of them scale_groups asks for. At load ONNX Runtime folds both branches before it
// chooses one, so the one that is not taken must hold its own, and cheaply: it gets a layer of one
// output, and as many groups a scale row as there can be.
Value* Product(Builder& b, const Layout1& layout, Value* scale_groups, Value* scaled) {
  Value* panelwise = b.Op("Equal", {scale_groups, b.Ints({0})});
  const auto only_if = [&](Builder& inner, Value* condition) {
    return OneOutputUnless(inner, layout, inner.Cast(condition, DType::kInt64));
  };
  return b.If(
      panelwise,
      [&](Builder& inner) { return PanelwiseProduct(inner, only_if(inner, panelwise), scaled); },
      [&](Builder& inner) {
        const Layout1 part = only_if(inner, inner.Op("Not", {panelwise}));
        Value* most = inner.Ints({kMaxInputs / kGroupInputs});
        Value* groups = inner.Op("Where", {panelwise, most, scale_groups});
        return layout.sparse() ? GroupwiseSparseProduct(inner, part, groups, scaled)
                               : GroupwiseDenseProduct(inner, part, groups, scaled);
      });
}

// Spelt the way that ONNX Runtime fuses into one operator each.
Value* Activate(Builder& b, Activation activation, Value* v) {
  const auto half = [&](Value* bracket) {  // v/2·(1 + bracket)
    Value* sum = b.Op("Add", {bracket, b.Float(1)});
    return b.Op("Mul", {b.Op("Mul", {v, b.Float(0.5f)}), sum});
  };
  switch (activation) {
    case Activation::kNone:
      break;
    case Activation::kRelu:
      return b.Op("Relu", {v});
    case Activation::kGelu:
      return half(b.Op("Erf", {b.Op("Div", {v, b.Float(std::sqrt(2.0f))})}));
    case Activation::kGeluTanh: {
      Value* cube = b.Op("Pow", {v, b.Float(3)});
      Value* sum = b.Op("Add", {v, b.Op("Mul", {cube, b.Float(0.044715f)})});
      return half(b.Op("Tanh", {b.Op("Mul", {sum, b.Float(0.7978845608f)})}));  // √(2/π)
    }
    case Activation::kSilu:
      return b.Op("Mul", {v, b.Op("Sigmoid", {v})});
  }
  return v;
}

std::vector<std::string> InputNames(const LinearOperator& op) {
  std::vector<std::string> names = {"X", "weight", "scale_code", "bias", "smooth"};
  if (IsNested(op.encoding)) names.push_back("gate");
  if (op.sparse) names.insert(names.end(), {"quad", "group_ptr"});
  return names;
}

// The function's inputs and attributes.
Layout1 LayoutOf(Builder& b, const LinearOperator& op, const Graph& body) {
  Layout1 layout{.weights = DecodeWeights(b, op.encoding, body.FindValue("weight")),
                 .scale_code = body.FindValue("scale_code"),
                 .scale_base = b.FloatAttribute("scale_base"),
                 .inputs = b.IntsAttribute("K"),
                 .outputs = b.IntsAttribute("N")};
  if (op.sparse) {
    layout.quad = body.FindValue("quad");
    layout.group_ptr = body.FindValue("group_ptr");
  }
  return layout;
}

}  // namespace

std::string OperatorName(const LinearOperator& op) {
  constexpr const char* kEncodings[] = {"8", "4", "Nested1", "Nested4"};
  return std::string(op.sparse ? "BlockSparseLinear" : "QuantizedLinear") +
         kEncodings[static_cast<size_t>(op.encoding)] + ActivationName(op.activation);
}

void AddLinearFunction(Model& model, const LinearOperator& op) {
  const std::string name = OperatorName(op);
  if (model.FindFunction(kOperatorDomain, name)) return;
  Function* function =
      model.AddFunction(std::string(kOperatorDomain), name, InputNames(op),
                        {"K", "N", "scale_groups", "scale_base", "layout"}, {{"", model.opset()}});
  Graph& body = *function->body;
  Builder b(body, Builder::Constants::kNodes);
  Value* x = b.Cast(body.FindValue("X"), DType::kFloat);
  const ScaledRows rows = ScaleRows(b, b.Op("Mul", {x, body.FindValue("smooth")}));
  Value* sum = Product(b, LayoutOf(b, op, body), b.IntsAttribute("scale_groups"), rows.scaled);
  // Rows are scaled after outputs: ONNX Runtime fuses MatMulInteger → Cast → Mul(row scale · output
  // scale) → Add into an operator that adds the bias before the row scale (docs/decisions/001).
  Value* v = b.Op("Add", {b.Op("Mul", {sum, rows.scale}), body.FindValue("bias")});
  Value* y = Activate(b, op.activation, v);
  body.AddGraphOutput(b.Op("CastLike", {y, body.FindValue("X")}));
  model.opset_imports[std::string(kOperatorDomain)] = kOperatorVersion;
}

}  // namespace sparsefuse

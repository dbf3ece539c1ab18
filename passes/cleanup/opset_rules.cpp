#include "passes/cleanup/opset_rules.h"

#include <fmt/format.h>

#include <algorithm>
#include <string_view>
#include <utility>
#include <vector>

namespace sparsefuse {
namespace {

const char* const kDone = "";

Attributes With(std::string name, Attribute::Data data) {
  Attributes attributes;
  attributes.emplace_back(std::move(name), std::move(data));
  return attributes;
}

void SetInput(Node& node, size_t index, Value* value) {
  while (node.inputs().size() <= index) node.graph()->AddInput(&node, nullptr);
  node.graph()->SetInput(&node, index, value);
}

// The attribute's integers become input `index`; an empty list means the same as none.
void MoveInts(Node& node, std::string_view attribute, size_t index, Builder& builder) {
  std::vector<int64_t> values = node.GetInts(attribute, {});
  if (!values.empty()) SetInput(node, index, builder.Ints(std::move(values)));
  node.RemoveAttribute(attribute);
}

// A float constant in the element type of `like`.
Value* FloatLike(float value, Value* like, const RuleContext& context) {
  Value* constant = context.builder.Float(value);
  if (context.types.dtype(*like) == DType::kFloat) return constant;
  return context.builder.Op("CastLike", {constant, like});
}

// `result` becomes the node's only output, and the node goes.
void TakeOver(Node& node, Value* result) {
  Graph* graph = node.graph();
  std::string name = node.name();
  result->producer()->set_name(std::move(name));
  graph->MoveOutput(node.output(0), result->producer(), 0);
  graph->RemoveNode(&node);
}

// Nearest-neighbour Resize before version 11 rounded down where it enlarges, up where it shrinks.
std::string NearestMode(const std::vector<float>& scales) {
  if (std::all_of(scales.begin(), scales.end(), [](float s) { return s >= 1; })) return "floor";
  if (std::all_of(scales.begin(), scales.end(), [](float s) { return s <= 1; })) return "ceil";
  return "";
}

// X and scales of an old resizing node become Resize's inputs of version 13.
std::string ToResize(Node& node, Value* scales, std::string mode) {
  if (mode == "bilinear" || mode == "trilinear") mode = "linear";
  node.set_op("Resize");
  node.SetAttribute("mode", mode);
  node.SetAttribute("coordinate_transformation_mode", std::string("asymmetric"));
  if (mode == "nearest") {
    const Tensor* constant = scales->constant();
    if (!constant) return "its scales are computed, so the rounding of nearest is unknown";
    std::string nearest = NearestMode(constant->ToFloats());
    if (nearest.empty()) return "it enlarges one axis and shrinks another by nearest neighbours";
    node.SetAttribute("nearest_mode", std::move(nearest));
  }
  SetInput(node, 1, nullptr);
  SetInput(node, 2, scales);
  return kDone;
}

}  // namespace

std::string RuleAxesToInput(Node& node, const RuleContext& context) {
  MoveInts(node, "axes", 1, context.builder);
  if (node.Is("Unsqueeze") && !node.input(1)) return "it has no axes";
  return kDone;
}

std::string RuleBatchNormSpatial(Node& node, const RuleContext&) {
  if (node.GetInt("spatial", 1) != 1) return "spatial = 0 has no counterpart from opset 9 on";
  node.RemoveAttribute("spatial");
  return kDone;
}

std::string RuleBatchNormOutputs(Node& node, const RuleContext&) {
  for (size_t i = 1; i < node.outputs().size(); ++i) {
    const Value* output = node.output(i);
    if (output) return "it is in training form (more than one output)";
  }
  return kDone;
}

std::string RuleClipBounds(Node& node, const RuleContext& context) {
  Value* input = node.input(0);
  const char* const names[] = {"min", "max"};
  for (size_t i = 0; i < 2; ++i) {
    if (!node.attribute(names[i])) continue;
    SetInput(node, i + 1, FloatLike(node.GetFloat(names[i], 0), input, context));
    node.RemoveAttribute(names[i]);
  }
  return kDone;
}

std::string RuleDftAxis(Node& node, const RuleContext& context) {
  SetInput(node, 2, context.builder.Constant(Tensor::Scalar<int64_t>(node.GetInt("axis", 1))));
  node.RemoveAttribute("axis");
  return kDone;
}

std::string RuleDropoutRatio(Node& node, const RuleContext& context) {
  const Value* mask = node.output(1);
  if (mask && (!mask->uses().empty() || mask->is_graph_output())) {
    return "its mask, whose meaning changed at opset 12, is used";
  }
  if (node.attribute("ratio"))
    SetInput(node, 1, context.builder.Float(node.GetFloat("ratio", 0.5f)));
  node.RemoveAttribute("ratio");
  return kDone;
}

std::string RuleGridSampleMode(Node& node, const RuleContext&) {
  const std::string mode = node.GetString("mode", "bilinear");
  if (mode == "bilinear") node.SetAttribute("mode", std::string("linear"));
  if (mode == "bicubic") node.SetAttribute("mode", std::string("cubic"));
  return kDone;
}

// Up to version 20 scale and bias have one entry a group, from 21 on one a channel. With the groups
// as channels, InstanceNormalization means the same in any version.
std::string RuleGroupNorm(Node& node, const RuleContext& context) {
  Builder& builder = context.builder;
  Value* shape = builder.Op("Shape", {node.input(0)});
  Value* groups = builder.Ints({0, node.GetInt("num_groups", 1), -1});
  Value* grouped = builder.Op("Reshape", {node.input(0), groups});
  Value* normal = builder.Op("InstanceNormalization", {grouped, node.input(1), node.input(2)},
                             With("epsilon", node.GetFloat("epsilon", 1e-5f)));
  TakeOver(node, builder.Op("Reshape", {normal, shape}));
  return kDone;
}

// y = scale · x + bias[channel]: an experimental operator that ONNX Runtime still knows up to
// opset 9.
std::string RuleImageScaler(Node& node, const RuleContext& context) {
  Builder& builder = context.builder;
  const Attribute* attribute = node.attribute("bias");
  const auto* bias = attribute ? std::get_if<std::vector<float>>(&attribute->data) : nullptr;
  if (!bias) return "it has no bias";
  Value* input = node.input(0);
  const auto channels = static_cast<int64_t>(bias->size());
  Value* offset = builder.Constant(Tensor::Of<float>({channels, 1, 1}, *bias));
  if (context.types.dtype(*input) != DType::kFloat)
    offset = builder.Op("CastLike", {offset, input});
  Value* factor = FloatLike(node.GetFloat("scale", 1), input, context);
  TakeOver(node, builder.Op("Add", {builder.Op("Mul", {input, factor}), offset}));
  return kDone;
}

std::string RulePadInputs(Node& node, const RuleContext& context) {
  if (!node.attribute("pads")) return "it has no pads";
  Value* input = node.input(0);
  SetInput(node, 1, context.builder.Ints(node.GetInts("pads", {})));
  const float value = node.GetFloat("value", 0);
  if (value != 0) SetInput(node, 2, FloatLike(value, input, context));
  node.RemoveAttribute("pads");
  node.RemoveAttribute("value");
  return kDone;
}

std::string RulePoolCeil(Node& node, const RuleContext&) {
  return node.GetInt("ceil_mode", 0) ? "ceil_mode counts the padding differently from opset 19 on"
                                     : kDone;
}

std::string RuleResizeFirst(Node& node, const RuleContext&) {
  return ToResize(node, node.input(1), node.GetString("mode", "nearest"));
}

// The inputs that are not meant became absent instead of empty.
std::string RuleResizeOptional(Node& node, const RuleContext&) {
  if (node.GetString("coordinate_transformation_mode", "half_pixel") == "tf_half_pixel_for_nn") {
    return "tf_half_pixel_for_nn has no counterpart from opset 13 on";
  }
  for (size_t i = 1; i <= 2; ++i) {
    const Tensor* constant = node.constant_input(i);
    if (constant && constant->size() == 0) SetInput(node, i, nullptr);
  }
  return kDone;
}

std::string RuleRoiAlign(Node& node, const RuleContext&) {
  node.SetAttribute("coordinate_transformation_mode", std::string("output_half_pixel"));
  return kDone;
}

std::string RuleScanBatch(Node&, const RuleContext&) {
  return "its batch axis has no counterpart from opset 9 on";
}

std::string RuleScatter(Node& node, const RuleContext&) {
  node.set_op("ScatterElements");
  return kDone;
}

std::string RuleSliceInputs(Node& node, const RuleContext& context) {
  if (!node.attribute("starts") || !node.attribute("ends")) return "it has no starts or ends";
  SetInput(node, 1, context.builder.Ints(node.GetInts("starts", {})));
  SetInput(node, 2, context.builder.Ints(node.GetInts("ends", {})));
  node.RemoveAttribute("starts");
  node.RemoveAttribute("ends");
  MoveInts(node, "axes", 3, context.builder);
  return kDone;
}

// Before version 13 the axes from `axis` on were taken together as one; that is the same for the
// last.
std::string RuleSoftmaxAxis(Node& node, const RuleContext& context) {
  const int64_t axis = node.GetInt("axis", 1);
  const std::optional<int64_t> rank = context.types.rank(*node.input(0));
  if (axis == -1 || (rank && (axis < 0 ? axis + *rank : axis) == *rank - 1)) {
    node.SetAttribute("axis", int64_t{-1});
    return kDone;
  }
  Builder& builder = context.builder;
  Value* shape = builder.Op("Shape", {node.input(0)});
  Value* rows = builder.Op("Flatten", {node.input(0)}, With("axis", axis));
  Value* result = builder.Op(node.op(), {rows}, With("axis", int64_t{-1}));
  TakeOver(node, builder.Op("Reshape", {result, shape}));
  return kDone;
}

std::string RuleSplitInput(Node& node, const RuleContext& context) {
  MoveInts(node, "split", 1, context.builder);
  return kDone;
}

std::string RuleSplitCount(Node& node, const RuleContext&) {
  if (!node.input(1)) {
    node.SetAttribute("num_outputs", static_cast<int64_t>(node.outputs().size()));
  }
  return kDone;
}

std::string RuleTopKInput(Node& node, const RuleContext& context) {
  if (!node.attribute("k")) return "it has no k";
  SetInput(node, 1, context.builder.Ints({node.GetInt("k", 0)}));
  node.RemoveAttribute("k");
  return kDone;
}

std::string RuleUpsample(Node& node, const RuleContext& context) {
  Value* scales = node.input(1);  // from version 9 on
  if (!scales) {
    const Attribute* attribute = node.attribute("scales");
    const auto* values = attribute ? std::get_if<std::vector<float>>(&attribute->data) : nullptr;
    if (!values) return "it has no scales";
    scales = context.builder.Constant(
        Tensor::Of<float>({static_cast<int64_t>(values->size())}, *values));
    node.RemoveAttribute("scales");
  }
  return ToResize(node, scales, node.GetString("mode", "nearest"));
}

}  // namespace sparsefuse

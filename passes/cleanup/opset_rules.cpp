#include "passes/cleanup/opset_rules.h"

#include <fmt/format.h>

#include <algorithm>
#include <string_view>
#include <utility>
#include <vector>

namespace sparsefuse {
namespace {

const RuleResult kSame{RuleResult::kSame, {}};
const RuleResult kRewritten{RuleResult::kRewritten, {}};

RuleResult Refused(std::string reason) { return {RuleResult::kRefused, std::move(reason)}; }

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
RuleResult ToResize(Node& node, Value* scales, std::string mode) {
  if (mode == "bilinear" || mode == "trilinear") mode = "linear";
  node.set_op("Resize");
  node.SetAttribute("mode", mode);
  node.SetAttribute("coordinate_transformation_mode", std::string("asymmetric"));
  if (mode == "nearest") {
    const Tensor* constant = scales->constant();
    if (!constant) return Refused("its scales are computed, so the rounding of nearest is unknown");
    std::string nearest = NearestMode(constant->ToFloats());
    if (nearest.empty())
      return Refused("it enlarges one axis and shrinks another by nearest neighbours");
    node.SetAttribute("nearest_mode", std::move(nearest));
  }
  SetInput(node, 1, nullptr);
  SetInput(node, 2, scales);
  return kRewritten;
}

}  // namespace

RuleResult RuleAxesToInput(Node& node, const RuleContext& context) {
  const bool has_axes = node.attribute("axes") != nullptr;
  MoveInts(node, "axes", 1, context.builder);
  if (node.Is("Unsqueeze") && !node.input(1)) return Refused("it has no axes");
  return has_axes ? kRewritten : kSame;
}

RuleResult RuleBatchNormSpatial(Node& node, const RuleContext&) {
  if (node.GetInt("spatial", 1) != 1)
    return Refused("spatial = 0 has no counterpart from opset 9 on");
  if (!node.attribute("spatial")) return kSame;
  node.RemoveAttribute("spatial");
  return kRewritten;
}

RuleResult RuleBatchNormOutputs(Node& node, const RuleContext&) {
  for (size_t i = 1; i < node.outputs().size(); ++i) {
    const Value* output = node.output(i);
    if (output) return Refused("it is in training form (more than one output)");
  }
  return kSame;
}

RuleResult RuleClipBounds(Node& node, const RuleContext& context) {
  Value* input = node.input(0);
  if (!node.attribute("min") && !node.attribute("max")) return kSame;
  const char* const names[] = {"min", "max"};
  for (size_t i = 0; i < 2; ++i) {
    if (!node.attribute(names[i])) continue;
    SetInput(node, i + 1, FloatLike(node.GetFloat(names[i], 0), input, context));
    node.RemoveAttribute(names[i]);
  }
  return kRewritten;
}

RuleResult RuleDftAxis(Node& node, const RuleContext& context) {
  SetInput(node, 2, context.builder.Constant(Tensor::Scalar<int64_t>(node.GetInt("axis", 1))));
  node.RemoveAttribute("axis");
  return kRewritten;
}

RuleResult RuleDropoutRatio(Node& node, const RuleContext& context) {
  const Value* mask = node.output(1);
  if (mask && (!mask->uses().empty() || mask->is_graph_output())) {
    return Refused("its mask, whose meaning changed at opset 12, is used");
  }
  if (!node.attribute("ratio")) return kSame;
  SetInput(node, 1, context.builder.Float(node.GetFloat("ratio", 0.5f)));
  node.RemoveAttribute("ratio");
  return kRewritten;
}

// bilinear → linear, bicubic → cubic.
RuleResult RuleGridSampleMode(Node& node, const RuleContext&) {
  const std::string mode = node.GetString("mode", "bilinear");
  if (mode != "bilinear" && mode != "bicubic") return kSame;
  node.SetAttribute("mode", mode.substr(2));
  return kRewritten;
}

// Up to version 20 scale and bias have one entry a group, from 21 on one a channel. With the groups
// as channels, InstanceNormalization means the same in any version.
RuleResult RuleGroupNorm(Node& node, const RuleContext& context) {
  Builder& builder = context.builder;
  Value* shape = builder.Op("Shape", {node.input(0)});
  Value* groups = builder.Ints({0, node.GetInt("num_groups", 1), -1});
  Value* grouped = builder.Op("Reshape", {node.input(0), groups});
  Value* normal = builder.Op("InstanceNormalization", {grouped, node.input(1), node.input(2)},
                             With("epsilon", node.GetFloat("epsilon", 1e-5f)));
  TakeOver(node, builder.Op("Reshape", {normal, shape}));
  return kRewritten;
}

// y = scale · x + bias[channel]: an experimental operator that ONNX Runtime still knows up to
// opset 9.
RuleResult RuleImageScaler(Node& node, const RuleContext& context) {
  Builder& builder = context.builder;
  const Attribute* attribute = node.attribute("bias");
  const auto* bias = attribute ? std::get_if<std::vector<float>>(&attribute->data) : nullptr;
  if (!bias) return Refused("it has no bias");
  Value* input = node.input(0);
  const auto channels = static_cast<int64_t>(bias->size());
  Value* offset = builder.Constant(Tensor::Of<float>({channels, 1, 1}, *bias));
  if (context.types.dtype(*input) != DType::kFloat)
    offset = builder.Op("CastLike", {offset, input});
  Value* factor = FloatLike(node.GetFloat("scale", 1), input, context);
  TakeOver(node, builder.Op("Add", {builder.Op("Mul", {input, factor}), offset}));
  return kRewritten;
}

RuleResult RulePadInputs(Node& node, const RuleContext& context) {
  if (!node.attribute("pads")) return Refused("it has no pads");
  Value* input = node.input(0);
  SetInput(node, 1, context.builder.Ints(node.GetInts("pads", {})));
  const float value = node.GetFloat("value", 0);
  if (value != 0) SetInput(node, 2, FloatLike(value, input, context));
  node.RemoveAttribute("pads");
  node.RemoveAttribute("value");
  return kRewritten;
}

RuleResult RulePoolCeil(Node& node, const RuleContext&) {
  if (!node.GetInt("ceil_mode", 0)) return kSame;
  return Refused("ceil_mode counts the padding differently from opset 19 on");
}

RuleResult RuleResizeFirst(Node& node, const RuleContext&) {
  return ToResize(node, node.input(1), node.GetString("mode", "nearest"));
}

// The inputs that are not meant became absent instead of empty.
RuleResult RuleResizeOptional(Node& node, const RuleContext&) {
  if (node.GetString("coordinate_transformation_mode", "half_pixel") == "tf_half_pixel_for_nn") {
    return Refused("tf_half_pixel_for_nn has no counterpart from opset 13 on");
  }
  RuleResult result = kSame;
  for (size_t i = 1; i <= 2; ++i) {
    const Tensor* constant = node.constant_input(i);
    if (!constant || constant->size() != 0) continue;
    SetInput(node, i, nullptr);
    result = kRewritten;
  }
  return result;
}

RuleResult RuleRoiAlign(Node& node, const RuleContext&) {
  node.SetAttribute("coordinate_transformation_mode", std::string("output_half_pixel"));
  return kRewritten;
}

RuleResult RuleScanBatch(Node&, const RuleContext&) {
  return Refused("its batch axis has no counterpart from opset 9 on");
}

RuleResult RuleScatter(Node& node, const RuleContext&) {
  node.set_op("ScatterElements");
  return kRewritten;
}

RuleResult RuleSliceInputs(Node& node, const RuleContext& context) {
  if (!node.attribute("starts") || !node.attribute("ends"))
    return Refused("it has no starts or ends");
  SetInput(node, 1, context.builder.Ints(node.GetInts("starts", {})));
  SetInput(node, 2, context.builder.Ints(node.GetInts("ends", {})));
  node.RemoveAttribute("starts");
  node.RemoveAttribute("ends");
  MoveInts(node, "axes", 3, context.builder);
  return kRewritten;
}

// Before version 13 the axes from `axis` on were taken together as one; that is the same for the
// last.
RuleResult RuleSoftmaxAxis(Node& node, const RuleContext& context) {
  const int64_t axis = node.GetInt("axis", 1);
  const std::optional<int64_t> rank = context.types.rank(*node.input(0));
  if (axis == -1 || (rank && (axis < 0 ? axis + *rank : axis) == *rank - 1)) {
    node.SetAttribute("axis", int64_t{-1});
    return kRewritten;
  }
  Builder& builder = context.builder;
  Value* shape = builder.Op("Shape", {node.input(0)});
  Value* rows = builder.Op("Flatten", {node.input(0)}, With("axis", axis));
  Value* result = builder.Op(node.op(), {rows}, With("axis", int64_t{-1}));
  TakeOver(node, builder.Op("Reshape", {result, shape}));
  return kRewritten;
}

RuleResult RuleSplitInput(Node& node, const RuleContext& context) {
  if (!node.attribute("split")) return kSame;
  MoveInts(node, "split", 1, context.builder);
  return kRewritten;
}

RuleResult RuleSplitCount(Node& node, const RuleContext&) {
  if (node.input(1)) return kSame;
  node.SetAttribute("num_outputs", static_cast<int64_t>(node.outputs().size()));
  return kRewritten;
}

RuleResult RuleTopKInput(Node& node, const RuleContext& context) {
  if (!node.attribute("k")) return Refused("it has no k");
  SetInput(node, 1, context.builder.Ints({node.GetInt("k", 0)}));
  node.RemoveAttribute("k");
  return kRewritten;
}

RuleResult RuleUpsample(Node& node, const RuleContext& context) {
  Value* scales = node.input(1);  // from version 9 on
  if (!scales) {
    const Attribute* attribute = node.attribute("scales");
    const auto* values = attribute ? std::get_if<std::vector<float>>(&attribute->data) : nullptr;
    if (!values) return Refused("it has no scales");
    scales = context.builder.Constant(
        Tensor::Of<float>({static_cast<int64_t>(values->size())}, *values));
    node.RemoveAttribute("scales");
  }
  return ToResize(node, scales, node.GetString("mode", "nearest"));
}

}  // namespace sparsefuse

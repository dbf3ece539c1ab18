// Rules of operators that compute: products, convolutions, elementwise functions, normalisations,
// reductions.

#include <fmt/format.h>

#include <algorithm>

#include "passes/analysis/axis_rules.h"

namespace sparsefuse {
namespace {

using Role = AxisRole;

// Output axes of an elementwise operator; inputs that are absent do not count.
void Elementwise(AxisTracer& tracer, const Node& node) {
  std::vector<const Value*> inputs;
  bool all_numbers = true;
  for (const Value* input : node.inputs()) {
    if (!input) continue;
    inputs.push_back(input);
    all_numbers = all_numbers && tracer.numbers.Find(input);
  }
  if (!all_numbers) {
    for (const Value* input : inputs) tracer.FreezeNumbers(input);
  }
  const std::optional<Axes> axes = tracer.Broadcast(inputs);
  if (!axes) return tracer.Opaque(node, "meets a tensor of unknown rank");
  tracer.Set(node.output(0), *axes);
}

// The first input's axes; the others are scalars, or do not matter.
void Unary(AxisTracer& tracer, const Node& node) {
  const Axes* axes = tracer.Find(node.input(0));
  if (!axes) return tracer.Opaque(node, "meets a tensor of unknown rank");
  const Axes copy = *axes;
  for (const Value* output : node.outputs()) tracer.Set(output, copy);
  if (!node.Is("Cast") && !node.Is("Identity") && !tracer.numbers.Find(node.output(0))) {
    tracer.FreezeNumbers(node.input(0));
  }
}

// Row-major product of a [..., M, K] and b [..., K, N]; vectors get an axis of size 1.
void MatMul(AxisTracer& tracer, const Node& node) {
  const Axes* pa = tracer.Find(node.input(0));
  const Axes* pb = tracer.Find(node.input(1));
  if (!pa || !pb || pa->empty() || pb->empty()) {
    return tracer.Opaque(node, "meets a tensor of unknown rank");
  }
  Axes a = *pa, b = *pb;
  const bool vector_a = a.size() == 1, vector_b = b.size() == 1;
  if (vector_a) a.insert(a.begin(), AxisAtoms::kOne);
  if (vector_b) b.push_back(AxisAtoms::kOne);
  const bool weight_a = tracer.flow.IsWeight(node.input(0));
  const bool weight_b = tracer.flow.IsWeight(node.input(1));
  const AxisId k = a.back(), rows = a[a.size() - 2], columns = b.back();
  tracer.atoms().Unify(k, b[b.size() - 2]);
  const bool weight = weight_a != weight_b;
  tracer.Record(weight ? Role::kContractedWithWeight : Role::kContracted, node, k);
  if (weight) tracer.Record(Role::kProduced, node, weight_a ? rows : columns);
  a.resize(a.size() - 2);
  b.resize(b.size() - 2);
  Axes out;
  for (size_t i = std::max(a.size(), b.size()); i > 0; --i) {
    const AxisId one = AxisAtoms::kOne;
    const AxisId x = i <= a.size() ? a[a.size() - i] : one;
    const AxisId y = i <= b.size() ? b[b.size() - i] : one;
    const bool both = !tracer.atoms().Same(x, one) && !tracer.atoms().Same(y, one);
    if (both) tracer.atoms().Unify(x, y);
    if (both && !weight_a && !weight_b) tracer.Record(Role::kBatch, node, x);
    out.push_back(tracer.atoms().Same(x, one) ? y : x);
  }
  if (!vector_a) out.push_back(rows);
  if (!vector_b) out.push_back(columns);
  tracer.Set(node.output(0), std::move(out));
}

void Gemm(AxisTracer& tracer, const Node& node) {
  const Axes* pa = tracer.Find(node.input(0));
  const Axes* pb = tracer.Find(node.input(1));
  if (!pa || !pb || pa->size() != 2 || pb->size() != 2) {
    return tracer.Opaque(node, "meets a tensor of unknown rank");
  }
  Axes a = *pa, b = *pb;
  if (node.GetInt("transA", 0)) std::swap(a[0], a[1]);
  if (node.GetInt("transB", 0)) std::swap(b[0], b[1]);
  const bool weight_a = tracer.flow.IsWeight(node.input(0));
  const bool weight_b = tracer.flow.IsWeight(node.input(1));
  tracer.atoms().Unify(a[1], b[0]);
  const bool weight = weight_a != weight_b;
  tracer.Record(weight ? Role::kContractedWithWeight : Role::kContracted, node, a[1]);
  if (weight) tracer.Record(Role::kProduced, node, weight_a ? a[0] : b[1]);
  tracer.Set(node.output(0), {a[0], b[1]});
  if (!node.input(2)) return;
  if (!tracer.Broadcast({node.output(0), node.input(2)})) {
    tracer.FreezeAll(node.output(0), "meets a tensor of unknown rank");
  }
}

// Labels that two operands share run along both; labels that the result lacks are summed over.
void Einsum(AxisTracer& tracer, const Node& node) {
  std::string equation = node.GetString("equation", "");
  equation.erase(std::remove(equation.begin(), equation.end(), ' '), equation.end());
  const size_t arrow = equation.find("->");
  if (arrow == std::string::npos || equation.find('.') != std::string::npos) {
    return tracer.Opaque(node, "in an Einsum of implicit form");
  }
  const std::string result = equation.substr(arrow + 2);
  std::unordered_map<char, AxisId> axis_of;
  std::unordered_map<char, int> weights, activations;
  size_t operand = 0, position = 0;
  for (const char c : equation.substr(0, arrow) + ",") {
    const Axes* axes = tracer.Find(node.input(operand));
    if (!axes) return tracer.Opaque(node, "meets a tensor of unknown rank");
    if (c == ',') {
      if (position != axes->size()) return tracer.Opaque(node, "in an Einsum of implicit form");
      ++operand, position = 0;
      continue;
    }
    if (position >= axes->size()) return tracer.Opaque(node, "in an Einsum of implicit form");
    const AxisId axis = (*axes)[position++];
    const auto [entry, fresh] = axis_of.emplace(c, axis);
    if (!fresh) tracer.atoms().Unify(entry->second, axis);
    ++(tracer.flow.IsWeight(node.input(operand)) ? weights : activations)[c];
  }
  Axes out;
  for (const char c : result) {
    const auto found = axis_of.find(c);
    if (found == axis_of.end()) return tracer.Opaque(node, "in an Einsum of implicit form");
    out.push_back(found->second);
  }
  for (const auto& [c, axis] : axis_of) {
    const bool kept = result.find(c) != std::string::npos;
    if (kept && activations[c] > 1) tracer.Record(Role::kBatch, node, axis);
    if (kept && activations[c] == 0) tracer.Record(Role::kProduced, node, axis);
    if (kept) continue;
    if (weights[c] + activations[c] < 2) tracer.atoms().Freeze(axis, "summed over by Einsum");
    tracer.Record(weights[c] > 0 ? Role::kContractedWithWeight : Role::kContracted, node, axis);
  }
  tracer.Set(node.output(0), std::move(out));
}

// Spatial axes of a result are its own: positions, not features.
Axes WithSpatial(AxisTracer& tracer, const Node& node, AxisId batch, AxisId channels, size_t rank) {
  Axes out = {batch, channels};
  const auto sizes = tracer.Sizes(node.output(0));
  while (out.size() < rank) {
    const bool known = sizes && sizes->size() == rank;
    out.push_back(tracer.atoms().NewFrozen(known ? (*sizes)[out.size()] : AxisAtoms::kOpen,
                                           "a position in the picture"));
  }
  return out;
}

// x [N, C, …]; weight [M, C/group, …], or [C, M/group, …] for ConvTranspose.
void Convolution(AxisTracer& tracer, const Node& node) {
  const Axes* px = tracer.Find(node.input(0));
  const Axes* pw = tracer.Find(node.input(1));
  if (!px || !pw || px->size() < 3 || px->size() != pw->size() ||
      !tracer.flow.IsWeight(node.input(1))) {
    return tracer.Opaque(node, "a convolution whose shapes are not known");
  }
  const Axes x = *px, w = *pw;
  AxisAtoms& atoms = tracer.atoms();
  const bool transposed = node.Is("ConvTranspose");
  const int64_t groups = node.GetInt("group", 1);
  AxisId channels = transposed ? w[1] : w[0];
  const AxisId inner = transposed ? w[0] : w[1];
  tracer.FreezeFrom(node.input(1), 2, "a position in the kernel");
  if (groups == 1) {
    atoms.Unify(x[1], inner);
    tracer.Record(Role::kContractedWithWeight, node, x[1]);
    tracer.Record(Role::kConvolved, node, x[1]);
  } else {
    // Every group has its own part of both channel axes.
    const int64_t in = atoms.size(x[1]), first = atoms.size(w[0]);
    const auto px1 = in > 0 && groups > 0 && in % groups == 0 ? atoms.SplitInner(x[1], in / groups)
                                                              : std::nullopt;
    const auto pw0 = first > 0 && groups > 0 && first % groups == 0
                         ? atoms.SplitInner(w[0], first / groups)
                         : std::nullopt;
    if (!px1 || !pw0) return tracer.Opaque(node, "groups that do not divide the channels");
    atoms.Unify(px1->outer, pw0->outer);
    atoms.Unify(px1->inner, transposed ? pw0->inner : w[1]);
    tracer.Record(Role::kContractedWithWeight, node, px1->inner);
    tracer.Record(Role::kConvolved, node, x[1]);
    if (transposed) channels = atoms.Prod(std::vector{pw0->outer, w[1]});
    tracer.AddSize({&node, 0, "group", 0, px1->outer});
  }
  tracer.Record(Role::kProduced, node, channels);
  tracer.Record(Role::kConvolved, node, channels);
  if (const Axes* bias = tracer.Find(node.input(2))) atoms.Unify(channels, bias->at(0));
  tracer.Set(node.output(0), WithSpatial(tracer, node, x[0], channels, x.size()));
}

void Pool(AxisTracer& tracer, const Node& node) {
  const Axes* px = tracer.Find(node.input(0));
  if (!px || px->size() < 3) return tracer.Opaque(node, "meets a tensor of unknown rank");
  const Axes x = *px;
  Axes out = WithSpatial(tracer, node, x[0], x[1], x.size());
  for (size_t i = 2; i < out.size() && node.op().find("Global") == 0; ++i) {
    out[i] = AxisAtoms::kOne;
  }
  for (const Value* output : node.outputs()) tracer.Set(output, out);
}

// Batch and channels pass where their sizes do.
void Resize(AxisTracer& tracer, const Node& node) {
  const Axes* px = tracer.Find(node.input(0));
  const auto sizes = tracer.Sizes(node.output(0));
  if (!px || !sizes || sizes->size() != px->size()) {
    return tracer.Opaque(node, fmt::format("no axis rule for this {}", node.op()));
  }
  const Axes x = *px;
  Axes out;
  for (size_t i = 0; i < x.size(); ++i) {
    const int64_t size = tracer.atoms().size(x[i]);
    const bool passes = i < 2 && (size == (*sizes)[i] || (i == 0 && size == AxisAtoms::kOpen));
    if (!passes) tracer.atoms().Freeze(x[i], "a position in the picture");
    out.push_back(passes ? x[i]
                         : tracer.atoms().NewFrozen((*sizes)[i], "a position in the picture"));
    // Sizes given as constants would have to follow: scales do not.
    if (passes && node.input(3)) tracer.atoms().Freeze(x[i], "resized by given sizes");
  }
  tracer.Set(node.output(0), std::move(out));
}

void PerChannelNorm(AxisTracer& tracer, const Node& node) {
  const Axes* px = tracer.Find(node.input(0));
  if (!px || px->size() < 2) return tracer.Opaque(node, "meets a tensor of unknown rank");
  const Axes x = *px;
  for (size_t i = 1; i < node.inputs().size(); ++i) {
    const Axes* vector = tracer.Find(node.input(i));
    if (vector && vector->size() == 1) tracer.atoms().Unify(x[1], vector->at(0));
  }
  if (node.Is("InstanceNormalization")) {
    tracer.FreezeFrom(node.input(0), 2, "normalised by InstanceNormalization");
  }
  tracer.Set(node.output(0), x);
}

// Statistics run over the axes from `axis` on, all of which must stay.
void LayerNorm(AxisTracer& tracer, const Node& node) {
  const Axes* px = tracer.Find(node.input(0));
  const auto axis = px ? FromFront(node.GetInt("axis", -1), px->size()) : std::nullopt;
  if (!axis) return tracer.Opaque(node, "meets a tensor of unknown rank");
  const Axes x = *px;
  tracer.FreezeFrom(node.input(0), *axis, "normalised by " + node.op());
  tracer.Set(node.output(0), x);
  for (size_t i = 1; i < node.inputs().size(); ++i) {
    if (node.input(i)) (void)tracer.Broadcast({node.output(0), node.input(i)});
  }
  for (size_t i = 1; i < node.outputs().size(); ++i) tracer.SetFrozen(node.output(i), "statistics");
}

void Softmax(AxisTracer& tracer, const Node& node) {
  const bool old = tracer.opset() < 13;  // all axes from `axis` on were one row
  const Axes* px = tracer.Find(node.input(0));
  const auto axis = px ? FromFront(node.GetInt("axis", old ? 1 : -1), px->size()) : std::nullopt;
  if (!axis) return tracer.Opaque(node, "meets a tensor of unknown rank");
  const Axes x = *px;
  for (size_t i = 0; i < x.size(); ++i) {
    if (i == *axis || (old && i > *axis)) {
      tracer.atoms().Freeze(x[i], "normalised by " + node.op());
    } else {
      tracer.Record(Role::kBesideSoftmax, node, x[i]);
    }
  }
  tracer.Set(node.output(0), x);
}

void Reduce(AxisTracer& tracer, const Node& node) {
  const Axes* px = tracer.Find(node.input(0));
  bool absent = false;
  const bool arg = node.op().find("Arg") == 0;
  auto given = arg ? std::optional(std::vector<int64_t>{node.GetInt("axis", 0)})
                   : tracer.Integers(node, "axes", 1, &absent);
  if (!px || (!given && !absent)) return tracer.Opaque(node, "reduced by " + node.op());
  const Axes x = *px;
  tracer.FreezeNumbers(tracer.numbers.Find(node.output(0)) ? nullptr : node.input(0));
  std::vector<bool> reduced(x.size(), !given && !node.GetInt("noop_with_empty_axes", 0));
  if (given) {
    for (const int64_t axis : *given) {
      if (const auto front = FromFront(axis, x.size())) reduced[*front] = true;
    }
  }
  Axes out;
  for (size_t i = 0; i < x.size(); ++i) {
    if (!reduced[i]) {
      out.push_back(x[i]);
      continue;
    }
    tracer.atoms().Freeze(x[i], "reduced by " + node.op());
    if (node.GetInt("keepdims", 1)) out.push_back(AxisAtoms::kOne);
  }
  tracer.Set(node.output(0), std::move(out));
}

void TopK(AxisTracer& tracer, const Node& node) {
  const Axes* px = tracer.Find(node.input(0));
  const auto axis = px ? FromFront(node.GetInt("axis", -1), px->size()) : std::nullopt;
  if (!axis) return tracer.Opaque(node, "meets a tensor of unknown rank");
  Axes out = *px;
  tracer.atoms().Freeze(out[*axis], "ranked by TopK");
  const auto sizes = tracer.Sizes(node.output(0));
  out[*axis] = tracer.atoms().NewFrozen(
      sizes && sizes->size() == out.size() ? (*sizes)[*axis] : AxisAtoms::kOpen, "ranked by TopK");
  for (const Value* output : node.outputs()) tracer.Set(output, out);
}

// Positions along some axes matter to the result, which has the same shape.
void Positional(AxisTracer& tracer, const Node& node) {
  const Axes* px = tracer.Find(node.input(0));
  if (!px) return tracer.Opaque(node, "meets a tensor of unknown rank");
  const Axes x = *px;
  const size_t first = node.Is("Trilu") && x.size() > 1 ? x.size() - 2 : 0;
  tracer.FreezeFrom(node.input(0), first, "its positions matter to " + node.op());
  tracer.Set(node.output(0), x);
}

// Scale and zero point: one for all, or a vector along `axis`; blocked ones are refused.
void Quantization(AxisTracer& tracer, const Node& node) {
  const Axes* px = tracer.Find(node.input(0));
  if (!px || node.GetInt("block_size", 0) != 0) {
    return tracer.Opaque(node, "quantised in blocks or of unknown rank");
  }
  const Axes x = *px;
  const auto axis = FromFront(node.GetInt("axis", 1), x.size());
  for (const size_t i : {1, 2}) {
    const Axes* vector = tracer.Find(node.input(i));
    if (!vector || vector->size() != 1 || !axis) continue;
    if (!tracer.atoms().Same(vector->at(0), AxisAtoms::kOne)) {
      tracer.atoms().Unify(x[*axis], vector->at(0));
    }
  }
  tracer.Set(node.output(0), x);
}

std::unordered_map<std::string_view, AxisRule> MakeTable() {
  std::unordered_map<std::string_view, AxisRule> table = {
      {"MatMul", MatMul},
      {"Gemm", Gemm},
      {"Einsum", Einsum},
      {"Conv", Convolution},
      {"ConvTranspose", Convolution},
      {"Resize", Resize},
      {"Upsample", Resize},
      {"BatchNormalization", PerChannelNorm},
      {"InstanceNormalization", PerChannelNorm},
      {"LayerNormalization", LayerNorm},
      {"RMSNormalization", LayerNorm},
      {"SimplifiedLayerNormalization", LayerNorm},
      {"Softmax", Softmax},
      {"LogSoftmax", Softmax},
      {"Hardmax", Softmax},
      {"TopK", TopK},
      {"Trilu", Positional},
      {"CumSum", Positional},
      {"QuantizeLinear", Quantization},
      {"DequantizeLinear", Quantization}};
  for (const auto op : {"Add",
                        "Sub",
                        "Mul",
                        "Div",
                        "Pow",
                        "Where",
                        "Min",
                        "Max",
                        "Sum",
                        "Mean",
                        "Mod",
                        "PRelu",
                        "Equal",
                        "Less",
                        "Greater",
                        "LessOrEqual",
                        "GreaterOrEqual",
                        "And",
                        "Or",
                        "Xor",
                        "BitShift",
                        "BitwiseAnd",
                        "BitwiseOr",
                        "BitwiseXor"}) {
    table[op] = Elementwise;
  }
  for (const auto op : {"Relu",      "Erf",        "Gelu",     "Tanh",      "Sigmoid",
                        "Sqrt",      "Cast",       "CastLike", "Clip",      "Identity",
                        "Dropout",   "Softplus",   "Exp",      "Log",       "Neg",
                        "Abs",       "Reciprocal", "Sin",      "Cos",       "Tan",
                        "Floor",     "Ceil",       "Round",    "Sign",      "Not",
                        "LeakyRelu", "Elu",        "Selu",     "Celu",      "HardSigmoid",
                        "HardSwish", "Mish",       "Swish",    "Softsign",  "ThresholdedRelu",
                        "Shrink",    "IsNaN",      "IsInf",    "BitwiseNot"}) {
    table[op] = Unary;
  }
  for (const auto op :
       {"MaxPool", "AveragePool", "LpPool", "GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"}) {
    table[op] = Pool;
  }
  for (const auto op :
       {"ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2",
        "ReduceLogSum", "ReduceLogSumExp", "ReduceSumSquare", "ArgMax", "ArgMin"}) {
    table[op] = Reduce;
  }
  return table;
}

}  // namespace

const std::unordered_map<std::string_view, AxisRule>& ComputeRules() {
  static const auto table = MakeTable();
  return table;
}

}  // namespace sparsefuse

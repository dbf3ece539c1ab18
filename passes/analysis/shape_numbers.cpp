#include "passes/analysis/shape_numbers.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string_view>
#include <utility>

namespace sparsefuse {
namespace {

using std::string_view;
constexpr int64_t kMaxInt = std::numeric_limits<int64_t>::max();
constexpr int64_t kMinInt = std::numeric_limits<int64_t>::min();

std::optional<ShapeNumbers> OfConstant(const Tensor& tensor) {
  if (tensor.rank() > 1 || tensor.size() > kMaxShapeNumbers) return std::nullopt;
  ShapeNumbers numbers{.scalar = tensor.rank() == 0};
  if (IsFloating(tensor.dtype()) && DTypeBits(tensor.dtype()) >= 16) {
    for (const float value : tensor.ToFloats()) numbers.elements.push_back({.value = value});
  } else if (tensor.dtype() == DType::kInt64 || tensor.dtype() == DType::kInt32 ||
             tensor.dtype() == DType::kBool) {
    for (const int64_t value : tensor.ToInts()) {
      numbers.elements.push_back({.value = static_cast<double>(value)});
    }
  } else {
    return std::nullopt;
  }
  return numbers;
}

// One operator on known numbers; integer division rounds towards zero as ONNX's does.
std::optional<double> Compute(string_view op, bool floating, const std::vector<double>& x) {
  if (x.size() == 1) {
    if (op == "Neg") return -x[0];
    if (op == "Sqrt") return std::sqrt(x[0]);
    if (op == "Floor") return std::floor(x[0]);
    if (op == "Ceil") return std::ceil(x[0]);
    if (op == "Abs") return std::abs(x[0]);
    if (op == "Not") return x[0] == 0;
    if (op == "Reciprocal") return 1 / x[0];
  }
  if (op == "Where" && x.size() == 3) return x[0] != 0 ? x[1] : x[2];
  if (x.size() != 2) return std::nullopt;
  if (op == "Add") return x[0] + x[1];
  if (op == "Sub") return x[0] - x[1];
  if (op == "Mul") return x[0] * x[1];
  if (op == "Max") return std::max(x[0], x[1]);
  if (op == "Min") return std::min(x[0], x[1]);
  if (op == "Equal") return x[0] == x[1];
  if (op == "Less") return x[0] < x[1];
  if (op == "Greater") return x[0] > x[1];
  if (op == "Div" && x[1] != 0) return floating ? x[0] / x[1] : std::trunc(x[0] / x[1]);
  if (op == "Mod" && x[1] != 0) return x[0] - x[1] * std::floor(x[0] / x[1]);
  return std::nullopt;
}

bool Computes(string_view op) {
  static constexpr string_view kOps[] = {"Neg",  "Sqrt",    "Floor", "Ceil", "Abs",   "Not",
                                         "Add",  "Sub",     "Mul",   "Max",  "Min",   "Equal",
                                         "Less", "Greater", "Div",   "Mod",  "Where", "Reciprocal"};
  return std::find(std::begin(kOps), std::end(kOps), op) != std::end(kOps);
}

// Integer in an attribute or, in later opsets, an input.
bool MovesAll(string_view op) {
  return op == "Identity" || op == "Unsqueeze" || op == "Squeeze" || op == "Reshape";
}

}  // namespace

std::optional<int64_t> ShapeNumber::integer() const {
  if (!value || std::isnan(*value)) return std::nullopt;
  if (*value >= static_cast<double>(kMaxInt)) return kMaxInt;
  if (*value <= static_cast<double>(kMinInt)) return kMinInt;
  return static_cast<int64_t>(*value);
}

const ShapeNumbers* ShapeNumberTable::Find(const Value* value) {
  if (!value) return nullptr;
  const auto [entry, fresh] = table_.try_emplace(value);
  if (fresh && value->constant()) entry->second = OfConstant(*value->constant());
  return entry->second ? &*entry->second : nullptr;
}

std::optional<int64_t> ShapeNumberTable::Integer(const Value* value) {
  const ShapeNumbers* numbers = Find(value);
  if (!numbers || numbers->elements.size() != 1) return std::nullopt;
  return numbers->elements[0].integer();
}

std::optional<std::vector<int64_t>> ShapeNumberTable::Integers(const Value* value) {
  const ShapeNumbers* numbers = Find(value);
  if (!numbers) return std::nullopt;
  std::vector<int64_t> integers;
  for (const ShapeNumber& number : numbers->elements) {
    const std::optional<int64_t> integer = number.integer();
    if (!integer) return std::nullopt;
    integers.push_back(*integer);
  }
  return integers;
}

std::optional<ShapeNumbers> ShapeNumberTable::Elementwise(const Node& node) {
  size_t count = 1;
  bool scalar = true, floating = false;
  std::vector<const ShapeNumbers*> inputs;
  for (const Value* input : node.inputs()) {
    const ShapeNumbers* numbers = Find(input);
    if (!numbers) return std::nullopt;
    inputs.push_back(numbers);
    scalar = scalar && numbers->scalar;
    if (numbers->elements.size() != 1) count = numbers->elements.size();
    for (const ShapeNumber& n : numbers->elements) {
      floating = floating || (n.value && *n.value != std::floor(*n.value));
    }
    const Tensor* constant = input->constant();
    floating = floating || (constant && IsFloating(constant->dtype()));
  }
  ShapeNumbers result{.scalar = scalar};
  for (size_t i = 0; i < count; ++i) {
    std::vector<double> values;
    std::vector<const ShapeNumber*> from;
    for (const ShapeNumbers* numbers : inputs) {
      const size_t n = numbers->elements.size();
      if (n != 1 && n != count) return std::nullopt;
      from.push_back(&numbers->elements[n == 1 ? 0 : i]);
      if (from.back()->value) values.push_back(*from.back()->value);
    }
    ShapeNumber number;
    // A size is never negative: exporters test for −1 before they expand.
    const bool size_is_minus_one =
        node.Is("Equal") && values.size() == 1 && values[0] < 0 &&
        std::any_of(from.begin(), from.end(), [](const auto* n) { return !n->value && n->axis; });
    if (node.Is("Where") && from[0]->value) {
      number = *from[*from[0]->value != 0 ? 1 : 2];
    } else if (size_is_minus_one) {
      number.value = 0;
    } else if (values.size() == from.size()) {
      number.value = Compute(node.op(), floating, values);
    }
    if (!size_is_minus_one) {
      for (const ShapeNumber* n : from) {
        number.computed_from.insert(number.computed_from.end(), n->computed_from.begin(),
                                    n->computed_from.end());
      }
    }
    result.elements.push_back(std::move(number));
  }
  return result;
}

std::optional<ShapeNumbers> ShapeNumberTable::Pick(const Node& node) {
  const ShapeNumbers* data = Find(node.input(0));
  const auto length = static_cast<int64_t>(data->elements.size());
  ShapeNumbers result;
  if (node.Is("Gather")) {
    const ShapeNumbers* indices = Find(node.input(1));
    const auto picked = Integers(node.input(1));
    if (!indices || !picked) return std::nullopt;
    result.scalar = indices->scalar;
    for (const int64_t index : *picked) {
      const int64_t i = index < 0 ? index + length : index;
      if (i < 0 || i >= length) return std::nullopt;
      result.elements.push_back(data->elements[static_cast<size_t>(i)]);
    }
    return result;
  }
  std::optional<int64_t> start, end, step = 1;
  if (node.inputs().size() > 1) {
    start = Integer(node.input(1));
    end = Integer(node.input(2));
    if (node.input(4)) step = Integer(node.input(4));
  } else {
    const std::vector<int64_t> starts = node.GetInts("starts", {}), ends = node.GetInts("ends", {});
    if (starts.size() == 1 && ends.size() == 1) start = starts[0], end = ends[0];
  }
  if (!start || !end || step != 1) return std::nullopt;
  const auto at = [&](int64_t i) { return std::clamp(i < 0 ? i + length : i, int64_t{0}, length); };
  for (int64_t i = at(*start); i < at(*end); ++i) {
    result.elements.push_back(data->elements[static_cast<size_t>(i)]);
  }
  return result;
}

std::optional<ShapeNumbers> ShapeNumberTable::Evaluate(const Node& node) {
  const string_view op = node.op();
  if (!node.domain().empty()) return std::nullopt;
  if (Computes(op)) return Elementwise(node);
  if (op == "ConstantOfShape") {
    const std::optional<int64_t> count = Integer(node.input(0));
    const Attribute* value = node.attribute("value");
    const Tensor* tensor = value ? std::get_if<Tensor>(&value->data) : nullptr;
    if (!count || *count < 0 || *count > kMaxShapeNumbers) return std::nullopt;
    const auto fill = tensor ? OfConstant(*tensor) : ShapeNumbers{.elements = {{.value = 0.0}}};
    if (!fill || fill->elements.size() != 1) return std::nullopt;
    return ShapeNumbers{
        .elements = std::vector<ShapeNumber>(static_cast<size_t>(*count), fill->elements[0])};
  }
  const ShapeNumbers* first = Find(node.input(0));
  if (!first) return std::nullopt;
  if (op == "Gather" || op == "Slice") return first->scalar ? std::nullopt : Pick(node);
  if (op == "Concat") {
    ShapeNumbers result;
    for (const Value* input : node.inputs()) {
      const ShapeNumbers* part = Find(input);
      if (!part || part->scalar) return std::nullopt;
      result.elements.insert(result.elements.end(), part->elements.begin(), part->elements.end());
    }
    return result;
  }
  if (op == "Cast") {
    // To an integer the fraction goes; what comes of a float is no longer an axis's size exactly.
    ShapeNumbers result = *first;
    const int64_t to = node.GetInt("to", 0);
    const bool to_integer = to == 6 || to == 7;  // int32, int64
    for (ShapeNumber& n : result.elements) {
      if (to_integer && n.value) n.value = std::trunc(*n.value);
    }
    return result;
  }
  if (op == "ReduceProd") {
    ShapeNumber product{.value = 1.0};
    for (const ShapeNumber& n : first->elements) {
      product.value =
          product.value && n.value ? std::optional(*product.value * *n.value) : std::nullopt;
      product.computed_from.insert(product.computed_from.end(), n.computed_from.begin(),
                                   n.computed_from.end());
    }
    return ShapeNumbers{.scalar = node.GetInt("keepdims", 1) == 0, .elements = {product}};
  }
  if (!MovesAll(op)) return std::nullopt;
  ShapeNumbers result = *first;
  if (op == "Squeeze") result.scalar = result.elements.size() == 1;
  if (op == "Unsqueeze") {
    if (!first->scalar) return std::nullopt;
    result.scalar = false;
  }
  if (op == "Reshape") {
    const ShapeNumbers* target = Find(node.input(1));
    if (!target || target->elements.size() > 1) return std::nullopt;
    result.scalar = target->elements.empty();
  }
  return result;
}

void ShapeNumberTable::Learn(const Node& node,
                             const std::function<const std::vector<AxisId>*(const Value*)>& axes,
                             const AxisAtoms& atoms) {
  const Value* output = node.output(0);
  if (!output || node.Is("Constant")) return;
  std::optional<ShapeNumbers> learnt;
  if (node.Is("Shape")) {
    const std::vector<AxisId>* of = axes(node.input(0));
    if (!of) return;
    const auto rank = static_cast<int64_t>(of->size());
    const auto at = [&](int64_t i) { return std::clamp(i < 0 ? i + rank : i, int64_t{0}, rank); };
    learnt.emplace();
    for (int64_t i = at(node.GetInt("start", 0)); i < at(node.GetInt("end", rank)); ++i) {
      const AxisId axis = (*of)[static_cast<size_t>(i)];
      const int64_t size = atoms.size(axis);
      ShapeNumber number{.axis = axis, .computed_from = {axis}};
      if (size != AxisAtoms::kOpen) number.value = static_cast<double>(size);
      learnt->elements.push_back(std::move(number));
    }
  } else {
    learnt = Evaluate(node);
  }
  if (learnt && learnt->elements.size() <= kMaxShapeNumbers) table_[output] = std::move(learnt);
}

}  // namespace sparsefuse

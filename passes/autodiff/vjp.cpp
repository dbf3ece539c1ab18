#include "passes/autodiff/vjp.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>

namespace sparsefuse {

std::vector<int64_t> AxisRange(int64_t first, int64_t end) {
  std::vector<int64_t> axes(static_cast<size_t>(end - first));
  std::iota(axes.begin(), axes.end(), first);
  return axes;
}

DType ShapedBuilder::dtype(Value* x) {
  const DType type = types_.dtype(*x);
  if (type == DType::kUndefined) {
    throw NoGradient{fmt::format("the type of \"{}\" is unknown", Printable(x->name()))};
  }
  return type;
}

std::optional<int64_t> ShapedBuilder::rank(Value* x) { return types_.rank(*x); }

std::optional<Lengths> ShapedBuilder::lengths(Value* x) {
  const std::optional<ValueType> type = types_.type(*x);
  if (!type || !type->has_shape) return std::nullopt;
  return type->dims;
}

std::optional<std::vector<int64_t>> ShapedBuilder::fixed_shape(Value* x) {
  const std::optional<Lengths> known = lengths(x);
  if (!known) return std::nullopt;
  std::vector<int64_t> shape;
  for (const auto& length : *known) {
    if (!std::holds_alternative<int64_t>(length)) return std::nullopt;
    shape.push_back(std::get<int64_t>(length));
  }
  return shape;
}

int64_t ShapedBuilder::NeedRank(Value* x) {
  const std::optional<int64_t> known = rank(x);
  if (!known) throw NoGradient{fmt::format("the rank of \"{}\" is unknown", Printable(x->name()))};
  return *known;
}

Value* ShapedBuilder::Shape(Value* x) {
  Value*& shape = shapes_[x];
  if (!shape) {
    const auto fixed = fixed_shape(x);
    shape = fixed ? Ints(*fixed) : Op("Shape", {x});
  }
  return shape;
}

Value* ShapedBuilder::Shape(Value* x, int64_t first, int64_t end) {
  if (const std::optional<Lengths> known = lengths(x)) {
    const int64_t stop = std::min(end, static_cast<int64_t>(known->size()));
    std::vector<int64_t> part;
    for (int64_t i = first; i < stop; ++i) {
      const auto* number = std::get_if<int64_t>(&(*known)[static_cast<size_t>(i)]);
      if (number) part.push_back(*number);
    }
    if (static_cast<int64_t>(part.size()) == stop - first) return Ints(std::move(part));
  }
  return Op("Slice", {Shape(x), Ints({first}), Ints({end})});
}

Value* ShapedBuilder::Count(Value* x, int64_t first, int64_t end) {
  Value* part = Shape(x, first, end);
  if (const Tensor* known = part->constant()) {
    const std::vector<int64_t> lengths = known->ToInts();
    return Ints({std::accumulate(lengths.begin(), lengths.end(), int64_t{1},
                                 [](int64_t a, int64_t b) { return a * b; })});
  }
  return Op("Reshape",
            {Op("ReduceProd", {part}, AttributeList("keepdims", int64_t{1})), Ints({1})});
}

Value* ShapedBuilder::Number(double number, Value* like) {
  const DType type = dtype(like);
  if (type == DType::kDouble) return Constant(Tensor::Scalar(number));
  Value* value = Float(static_cast<float>(number));
  return type == DType::kFloat ? value : Cast(value, type);
}

Value* ShapedBuilder::Ones(std::vector<int64_t> shape, Value* like) {
  return Op("Expand", {Number(1, like), Ints(std::move(shape))});
}

Value* ShapedBuilder::Filled(double number, Value* shape, Value* like) {
  return Op("Expand", {Number(number, like), shape});
}

Value* ShapedBuilder::Concat(std::vector<Value*> parts) {
  return Op("Concat", std::move(parts), AttributeList("axis", int64_t{0}));
}

Value* ShapedBuilder::Sum(Value* x, std::vector<int64_t> axes, bool keep) {
  return Op("ReduceSum", {x, Ints(std::move(axes))},
            AttributeList("keepdims", static_cast<int64_t>(keep)));
}

Value* ShapedBuilder::Mean(Value* x, const std::vector<int64_t>& axes, Value* like) {
  // ReduceMean takes its axes as an attribute or as an input, depending on the opset.
  const int64_t total = NeedRank(like);
  Value* count = Ints({1});
  for (const int64_t axis : axes) {
    const int64_t from_first = axis < 0 ? axis + total : axis;
    Value* length = Shape(like, from_first, from_first + 1);
    const Tensor *a = count->constant(), *b = length->constant();
    count = a && b ? Ints({a->ToInts()[0] * b->ToInts()[0]}) : Mul(count, length);
  }
  return Div(Sum(x, axes, true), Cast(count, dtype(like)));
}

Value* ShapedBuilder::Transpose(Value* x, std::vector<int64_t> perm) {
  return Op("Transpose", {x}, AttributeList("perm", std::move(perm)));
}

Value* ShapedBuilder::SumTo(Value* g, const std::optional<Lengths>& from, Value* target) {
  const std::optional<Lengths> to = lengths(target);
  if (!from || !to || from->size() < to->size()) return SumToAtRunTime(g, target);
  const size_t extra = from->size() - to->size();
  std::vector<int64_t> repeated;
  for (size_t i = 0; i < to->size(); ++i) {
    const auto &before = (*to)[i], &after = (*from)[extra + i];
    if (before == after && before != Lengths::value_type(std::string())) continue;
    if (after == Lengths::value_type(int64_t{1})) continue;  // then the other is 1 as well
    const auto* number = std::get_if<int64_t>(&before);
    if (!number) return SumToAtRunTime(g, target);
    if (*number == 1) repeated.push_back(static_cast<int64_t>(extra + i));
  }
  if (!repeated.empty()) g = Sum(g, std::move(repeated), true);
  if (extra > 0) g = Sum(g, AxisRange(0, static_cast<int64_t>(extra)), false);
  return g;
}

Value* ShapedBuilder::SumToAtRunTime(Value* g, Value* target) {
  Value *from = Op("Shape", {g}), *to = Shape(target);
  Value* extra = Sub(Op("Shape", {from}), Op("Shape", {to}));
  Value* ones = Op("ConstantOfShape", {extra},
                   AttributeList("value", Tensor::Of<int64_t>({1}, std::vector<int64_t>{1})));
  Value* differs = Op("Not", {Op("Equal", {Concat({ones, to}), from})});
  Value* axes = Op("Reshape", {Op("NonZero", {differs}), Ints({-1})});
  Value* sum = Op("ReduceSum", {g, axes},
                  AttributeList("keepdims", int64_t{1}, "noop_with_empty_axes", int64_t{1}));
  return Op("Reshape", {sum, to});
}

std::vector<Value*> Vjp::Apply(void (*rule)(Vjp&), Node& node, std::vector<Value*> arrived,
                               std::vector<bool> wanted) {
  node_ = &node;
  arrived_ = std::move(arrived);
  wanted_ = std::move(wanted);
  given_.assign(wanted_.size(), nullptr);
  rule(*this);
  return std::move(given_);
}

void Vjp::Give(size_t i, Value* gradient) {
  SF_CHECK(Wants(i) && !given_[i], "{}, input {}", node_->Describe(), i);
  given_[i] = gradient;
}

void Vjp::GiveSummed(size_t i, Value* gradient) { Give(i, SumTo(gradient, lengths(y()), x(i))); }

Attributes Vjp::PlainAttributes() const {
  Attributes copies;
  const auto copy = [&]<typename T>(const Attribute& attribute, const T*) {
    if (const T* data = std::get_if<T>(&attribute.data)) copies.emplace_back(attribute.name, *data);
  };
  for (const Attribute& attribute : node_->attributes()) {
    copy(attribute, static_cast<const int64_t*>(nullptr));
    copy(attribute, static_cast<const float*>(nullptr));
    copy(attribute, static_cast<const std::string*>(nullptr));
    copy(attribute, static_cast<const std::vector<int64_t>*>(nullptr));
    copy(attribute, static_cast<const std::vector<float>*>(nullptr));
  }
  return copies;
}

void Vjp::NeedOpset(int64_t opset) {
  if (graph().model()->opset() < opset) {
    throw NoGradient{fmt::format("its gradient needs opset {}", opset)};
  }
}

}  // namespace sparsefuse

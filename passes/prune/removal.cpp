#include "passes/prune/removal.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <map>
#include <string>
#include <tuple>
#include <unordered_set>
#include <utility>

#include "onnx_io/error.h"
#include "passes/cleanup/known_types.h"
#include "passes/lower/builder.h"
#include "passes/prune/removal_sizes.h"

namespace sparsefuse {
namespace {

// For each position of an axis whether it goes.
using Gone = std::vector<bool>;

Value& In(Model& model, const Value& value) {
  Value* found = model.graph().FindValue(value.name());
  SF_CHECK(found, "\"{}\" is not in the model", value.name());
  return *found;
}

const Value& FirstOutput(const Node& node) {
  return **std::find_if(node.outputs().begin(), node.outputs().end(),
                        [](const Value* output) { return output; });
}

Node& In(Model& model, const Node& node) {
  Node* found = In(model, FirstOutput(node)).producer();
  SF_CHECK(found, "{} is not in the model", node.Describe());
  return *found;
}

std::vector<bool> GoneUnits(const Keep& keep) {
  const auto units = static_cast<size_t>(keep.module->units);
  std::vector<bool> gone(units, true);
  SF_CHECK(!keep.units.empty(), "a module cannot lose all units");
  for (const int64_t unit : keep.units) {
    SF_CHECK(unit >= 0 && static_cast<size_t>(unit) < units, "no unit {} of {}", unit, units);
    gone[static_cast<size_t>(unit)] = false;
  }
  return gone;
}

void Mark(const std::vector<bool>& units, const std::vector<int64_t>& unit_of, Gone& gone) {
  gone.resize(unit_of.size());
  for (size_t i = 0; i < unit_of.size(); ++i) {
    if (unit_of[i] >= 0 && units[static_cast<size_t>(unit_of[i])]) gone[i] = true;
  }
}

bool Any(const Gone& gone) { return std::find(gone.begin(), gone.end(), true) != gone.end(); }

// `count` elements of `bits` each, from element `from` of `source` to element `to` of `target`.
// Elements under a byte are packed, the first in the low bits.
void CopyElements(std::span<const std::byte> source, size_t from, std::span<std::byte> target,
                  size_t to, size_t count, size_t bits) {
  if (bits >= 8) {
    const size_t width = bits / 8;
    std::memcpy(&target[to * width], &source[from * width], count * width);
    return;
  }
  const auto mask = static_cast<unsigned>((1 << bits) - 1);
  for (size_t i = 0; i < count; ++i) {
    const size_t in = (from + i) * bits, out = (to + i) * bits;
    const unsigned code = (std::to_integer<unsigned>(source[in / 8]) >> (in % 8)) & mask;
    target[out / 8] |= static_cast<std::byte>(code << (out % 8));
  }
}

// `tensor` without the positions of `axis` that go.
Tensor Without(const Tensor& tensor, size_t axis, const Gone& gone) {
  const auto bits = static_cast<size_t>(DTypeBits(tensor.dtype()));
  SF_CHECK(bits > 0 && axis < tensor.dims().size(), "cannot cut a tensor of {}",
           DTypeName(tensor.dtype()));
  Dims dims = tensor.dims();
  SF_CHECK(dims[axis] == static_cast<int64_t>(gone.size()), "{} positions of an axis of {}",
           gone.size(), dims[axis]);
  size_t outer = 1, inner = 1;
  for (size_t i = 0; i < dims.size(); ++i) {
    if (i != axis) (i < axis ? outer : inner) *= static_cast<size_t>(dims[i]);
  }
  dims[axis] = std::count(gone.begin(), gone.end(), false);
  const auto bytes = static_cast<size_t>(ByteCount(tensor.dtype(), dims).value());
  std::vector<std::byte> left(bytes);
  size_t to = 0;
  for (size_t o = 0; o < outer; ++o) {
    for (size_t i = 0; i < gone.size(); ++i) {
      if (gone[i]) continue;
      CopyElements(tensor.bytes(), (o * gone.size() + i) * inner, left, to, inner, bits);
      to += inner;
    }
  }
  return Tensor::FromBytes(tensor.dtype(), std::move(dims), left);
}

class Removal {
 public:
  explicit Removal(Model& model) : model_(model) {}

  void Add(const Keep& keep) {
    const std::vector<bool> units = GoneUnits(keep);
    for (const ModuleAxis& axis : keep.module->axes) {
      Mark(units, axis.unit_of, axes_[{axis.tensor->name(), axis.axis}]);
    }
    for (const ModuleSize& size : keep.module->sizes) {
      const SizeUse& use = size.use;
      Number& number =
          numbers_[{FirstOutput(*use.node).name(), use.input, use.attribute}][use.element];
      number.from_end = use.from_end;
      Mark(units, size.unit_of, number.gone);
    }
  }

  void Run() {
    for (const auto& [place, gone] : axes_) {
      if (!Any(gone)) continue;
      Value* value = model_.graph().FindValue(place.first);
      SF_CHECK(value && value->constant(), "no constant \"{}\"", place.first);
      SetConstant(*value, Without(*value->constant(), place.second, gone));
      for (const Use& use : value->uses()) changed_.insert(use.node);
    }
    for (const auto& [place, numbers] : numbers_) Rewrite(place, numbers);
    DropShapes();
  }

 private:
  struct Number {
    Gone gone;
    bool from_end = false;

    int64_t size() const {
      const int64_t left = std::count(gone.begin(), gone.end(), false);
      return from_end ? -left : left;
    }
  };
  using Place = std::tuple<std::string, size_t, std::string>;  // node's output, input, attribute

  void Rewrite(const Place& place, const std::map<int64_t, Number>& numbers) {
    const auto& [output, input, attribute] = place;
    Elements elements;
    int64_t old_size = 0;
    for (const auto& [element, number] : numbers) {
      if (Any(number.gone)) elements[element] = number.size();
      old_size = static_cast<int64_t>(number.gone.size());
    }
    if (elements.empty()) return;
    Node* node = model_.graph().FindValue(output)->producer();
    changed_.insert(node);
    if (!attribute.empty()) {
      SetAttributeElements(*node, attribute, elements);
    } else if (node->Is("Split") && !node->input(input)) {
      SetEqualSplit(*node, old_size, elements);
    } else {
      SetInputElements(*node, input, elements);
    }
  }

  // The engine infers them anew.
  void DropShapes() {
    for (Node* node : model_.graph().TopologicalOrder()) {
      const bool affected =
          changed_.count(node) > 0 ||
          std::any_of(node->inputs().begin(), node->inputs().end(), [&](const Value* input) {
            return input && input->producer() && changed_.count(input->producer()) > 0;
          });
      if (!affected) continue;
      changed_.insert(node);
      for (Value* output : node->outputs()) {
        if (!output || !output->type() || output->is_graph_output()) continue;
        output->set_type(ValueType{.dtype = output->type()->dtype});
      }
    }
  }

  Model& model_;
  std::map<std::pair<std::string, size_t>, Gone> axes_;  // of constants, by name
  std::map<Place, std::map<int64_t, Number>> numbers_;
  std::unordered_set<const Node*> changed_;
};

// Those of the named values that nothing needs, and all that was computed for nothing else.
void RemoveUnused(Graph& graph, std::vector<std::string> open) {
  while (!open.empty()) {
    Value* next = graph.FindValue(open.back());
    open.pop_back();
    const auto unused = [](const Value* v) {
      return !v || (v->uses().empty() && !v->is_graph_output() && !v->is_graph_input());
    };
    if (!next || !unused(next)) continue;
    Node* node = next->producer();
    if (!node) {
      graph.RemoveInitializer(next);
      continue;
    }
    if (!std::all_of(node->outputs().begin(), node->outputs().end(), unused)) continue;
    for (const Value* input : node->inputs()) {
      if (input) open.push_back(input->name());
    }
    graph.RemoveNode(node);
  }
}

double Difference(const Tensor& expected, const Tensor& actual) {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  if (expected.dtype() != actual.dtype() || expected.dims() != actual.dims()) return kInfinity;
  if (!IsFloating(expected.dtype())) {
    const auto a = expected.bytes(), b = actual.bytes();
    return std::equal(a.begin(), a.end(), b.begin()) ? 0 : kInfinity;
  }
  const std::vector<float> a = expected.ToFloats(), b = actual.ToFloats();
  // Below the least normal number there are no digits left to compare.
  double largest = std::numeric_limits<float>::min(), difference = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    if (!std::isfinite(a[i]) || !std::isfinite(b[i])) {
      // Masks put −∞ into outputs that are attention scores: equal infinities are equal.
      if (a[i] != b[i]) return kInfinity;
      continue;
    }
    largest = std::max(largest, std::abs(static_cast<double>(a[i])));
    difference = std::max(difference, std::abs(static_cast<double>(a[i]) - b[i]));
  }
  return difference / largest;
}

}  // namespace

void RemoveUnits(Model& model, std::span<const Keep> keeps) {
  Removal removal(model);
  for (const Keep& keep : keeps) removal.Add(keep);
  removal.Run();
}

// Zeros in the consumers' weights would do the same for most models, but not for all: a weight may
// be shared with another product, quantised (its zero is then a code of its own), or absent, where
// two activations are multiplied. An operand can always be multiplied.
void MaskUnits(Model& model, std::span<const Keep> keeps) {
  struct Mask {
    const ModuleRead* read;
    DType type;
    Gone gone;
  };
  KnownTypes types(model);
  std::map<std::tuple<std::string, size_t, size_t>, Mask> masks;  // node's output, input, axis
  for (const Keep& keep : keeps) {
    const std::vector<bool> units = GoneUnits(keep);
    for (const ModuleRead& read : keep.module->reads) {
      Mask& mask = masks[{FirstOutput(*read.node).name(), read.input, read.axis}];
      mask.read = &read;
      mask.type = types.dtype(*In(model, *read.node).input(read.input));
      Mark(units, read.unit_of, mask.gone);
    }
  }
  Builder builder(model.graph());
  for (const auto& [place, mask] : masks) {
    if (!Any(mask.gone)) continue;
    Node& node = In(model, *mask.read->node);
    Value* operand = node.input(mask.read->input);
    Dims dims(mask.read->rank - mask.read->axis, 1);
    dims[0] = static_cast<int64_t>(mask.gone.size());
    std::vector<float> factors;
    for (const bool gone : mask.gone) factors.push_back(gone ? 0.0F : 1.0F);
    builder.InsertBefore(&node);
    Value* factor = builder.Constant(Tensor::Of<float>(dims, factors));
    const bool other = mask.type != DType::kFloat && mask.type != DType::kUndefined;
    if (other) factor = builder.Cast(factor, mask.type);
    model.graph().SetInput(&node, mask.read->input, builder.Op("Mul", {operand, factor}));
  }
}

void RemoveBlock(Model& model, const Block& block, const Tensor* constant) {
  Graph& graph = model.graph();
  Node& add = In(model, *block.add);
  Value* kept = add.input(block.kept_input);
  Value* sum = add.output(0);
  // Nodes without any use are part of the block, too, and hold on to others.
  std::vector<std::string> gone = {add.input(1 - block.kept_input)->name()};
  for (const Node* node : block.removed) gone.push_back(FirstOutput(*node).name());
  if (constant) {
    Value* mean = graph.AddInitializer(graph.FreshName(gone[0] + "_mean"), *constant);
    graph.SetInput(&add, 1 - block.kept_input, mean);
    return RemoveUnused(graph, std::move(gone));
  }
  if (sum->is_graph_output()) {
    Builder builder(graph);
    builder.InsertBefore(&add);
    builder.OpAs(sum, "Identity", {kept});
  } else {
    graph.ReplaceUses(sum, kept);
  }
  graph.RemoveNode(&add);
  RemoveUnused(graph, std::move(gone));
}

double RemovalError(const Model& masked, const Model& removed, const Feeds& feeds,
                    const SessionOptions& options) {
  const Session reference(masked, options);
  std::vector<std::string> names;
  for (const Port& port : reference.outputs()) {
    if (port.type.dtype != DType::kUndefined) names.push_back(port.name);
  }
  const std::vector<Tensor> expected = reference.Run(feeds, names);
  const std::vector<Tensor> actual = Session(removed, options).Run(feeds, names);
  double error = 0;
  for (size_t i = 0; i < names.size(); ++i) {
    error = std::max(error, Difference(expected[i], actual[i]));
  }
  return error;
}

}  // namespace sparsefuse

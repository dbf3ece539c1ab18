// Rules of operators that move data: transposes, slices, concatenations, expansions, and the
// tensors that shapes are computed in. Reshape has a file of its own.

#include <algorithm>

#include "passes/analysis/axis_reshape.h"
#include "passes/analysis/axis_rules.h"

namespace sparsefuse {
namespace {

const std::string kUnknownRank = "meets a tensor of unknown rank";

void Transpose(AxisTracer& tracer, const Node& node) {
  const Axes* px = tracer.Find(node.input(0));
  if (!px) return tracer.Opaque(node, kUnknownRank);
  const Axes x = *px;
  std::vector<int64_t> perm;
  for (size_t i = x.size(); i > 0; --i) perm.push_back(static_cast<int64_t>(i) - 1);
  Axes out;
  for (const int64_t from : node.GetInts("perm", perm)) {
    const auto front = FromFront(from, x.size());
    if (!front) return tracer.Opaque(node, kUnknownRank);
    out.push_back(x[*front]);
  }
  tracer.Set(node.output(0), std::move(out));
}

void Squeeze(AxisTracer& tracer, const Node& node) {
  const Axes* px = tracer.Find(node.input(0));
  bool absent = false;
  const auto given = tracer.Integers(node, "axes", 1, &absent);
  if (!px || (!given && !absent)) return tracer.Opaque(node, kUnknownRank);
  const Axes x = *px;
  std::vector<bool> gone(x.size());
  for (size_t i = 0; absent && i < x.size(); ++i) {
    if (tracer.atoms().size(x[i]) == AxisAtoms::kOpen) return tracer.Opaque(node, kUnknownRank);
    gone[i] = tracer.atoms().size(x[i]) == 1;
  }
  for (size_t i = 0; given && i < given->size(); ++i) {
    if (const auto front = FromFront((*given)[i], x.size())) gone[*front] = true;
  }
  Axes out;
  for (size_t i = 0; i < x.size(); ++i) {
    if (!gone[i]) out.push_back(x[i]);
  }
  tracer.Set(node.output(0), std::move(out));
}

void Unsqueeze(AxisTracer& tracer, const Node& node) {
  const Axes* px = tracer.Find(node.input(0));
  const auto given = tracer.Integers(node, "axes", 1);
  if (!px || !given) return tracer.Opaque(node, kUnknownRank);
  const Axes x = *px;
  std::vector<bool> fresh(x.size() + given->size());
  for (const int64_t axis : *given) {
    const auto front = FromFront(axis, fresh.size());
    if (!front) return tracer.Opaque(node, kUnknownRank);
    fresh[*front] = true;
  }
  Axes out;
  for (size_t i = 0, next = 0; i < fresh.size(); ++i) {
    if (!fresh[i] && next == x.size()) return tracer.Opaque(node, kUnknownRank);
    out.push_back(fresh[i] ? AxisAtoms::kOne : x[next++]);
  }
  tracer.Set(node.output(0), std::move(out));
}

void Concat(AxisTracer& tracer, const Node& node) {
  std::optional<Axes> out;
  Axes parts;
  const Axes* first = tracer.Find(node.input(0));
  const auto axis = first ? FromFront(node.GetInt("axis", 0), first->size()) : std::nullopt;
  if (!axis) return tracer.Opaque(node, kUnknownRank);
  for (const Value* input : node.inputs()) {
    const Axes* px = tracer.Find(input);
    if (!px || (out && px->size() != out->size())) return tracer.Opaque(node, kUnknownRank);
    const Axes x = *px;
    if (!out) out = x;
    for (size_t i = 0; i < x.size(); ++i) {
      if (i != *axis) tracer.atoms().Unify((*out)[i], x[i]);
    }
    parts.push_back(x[*axis]);
  }
  (*out)[*axis] = tracer.atoms().Sum(parts);
  if (parts.size() > 1 && tracer.atoms().size((*out)[*axis]) == AxisAtoms::kOpen) {
    const std::string reason = "joined with something of open size";
    for (const AxisId part : parts) tracer.atoms().Freeze(part, reason);
    (*out)[*axis] = tracer.atoms().NewFrozen(AxisAtoms::kOpen, reason);
  }
  tracer.Set(node.output(0), std::move(*out));
}

void Split(AxisTracer& tracer, const Node& node) {
  const Axes* px = tracer.Find(node.input(0));
  const auto axis = px ? FromFront(node.GetInt("axis", 0), px->size()) : std::nullopt;
  if (!axis) return tracer.Opaque(node, kUnknownRank);
  const Axes x = *px;
  bool absent = false;
  auto sizes = tracer.Integers(node, "split", 1, &absent);
  const int64_t total = tracer.atoms().size(x[*axis]);
  const auto count = static_cast<int64_t>(node.outputs().size());
  if (absent && total != AxisAtoms::kOpen) {
    const int64_t each = (total + count - 1) / count;
    sizes.emplace(static_cast<size_t>(count), each);
    sizes->back() = total - each * (count - 1);
    // The sizes would follow from the count, if they could be told from it.
    if (sizes->back() != each) tracer.atoms().Freeze(x[*axis], "split unevenly without sizes");
  }
  const auto parts = sizes && sizes->size() == node.outputs().size()
                         ? tracer.atoms().Partition(x[*axis], *sizes)
                         : std::nullopt;
  if (!parts) return tracer.Opaque(node, "split at boundaries that cut through its parts");
  const bool attribute = node.attribute("split") != nullptr;
  for (size_t i = 0; i < parts->size(); ++i) {
    Axes out = x;
    out[*axis] = (*parts)[i];
    tracer.Set(node.outputs()[i], std::move(out));
    tracer.AddSize({&node, 1, attribute ? "split" : "", static_cast<int64_t>(i), (*parts)[i]});
  }
}

// Where one axis is sliced: element `element` of starts and ends.
struct Range {
  int64_t element, start, end, step;
};

// The axis that is left, with the numbers that must follow; nullopt: frozen.
std::optional<AxisId> SliceAxis(AxisTracer& tracer, const Node& node, AxisId axis, Range range) {
  AxisAtoms& atoms = tracer.atoms();
  const int64_t size = atoms.size(axis);
  if (size == AxisAtoms::kOpen) {
    if (range.start == 0 && range.end == INT64_MAX && range.step == 1) return axis;
    return std::nullopt;
  }
  const auto at = [&](int64_t i) { return std::clamp(i < 0 ? i + size : i, int64_t{0}, size); };
  const int64_t start = at(range.start), end = at(range.end);
  if (range.step > 1 && end == size && start < range.step && size % range.step == 0) {
    // Every step-th position from `start` on is one index of an inner axis.
    const auto pair = atoms.SplitInner(axis, range.step);
    if (!pair) return std::nullopt;
    atoms.Freeze(pair->inner, "one index of it is picked by Slice");
    return pair->outer;
  }
  if (range.step != 1 || start >= end) return std::nullopt;
  if (start == 0 && end == size) {
    // "Up to 768" would still be everything when the axis has shrunk.
    return axis;
  }
  std::vector<int64_t> sizes;
  for (const int64_t part : {start, end - start, size - end}) {
    if (part > 0) sizes.push_back(part);
  }
  const auto parts = atoms.Partition(axis, sizes);
  if (!parts) return std::nullopt;
  const size_t mine = start > 0 ? 1 : 0;
  const bool attribute = node.attribute("starts") != nullptr;
  const auto use = [&](size_t input, size_t from, size_t to, bool from_end) {
    const std::vector<AxisId> covered(parts->begin() + static_cast<long>(from),
                                      parts->begin() + static_cast<long>(to));
    if (covered.empty()) return;
    const std::string name = !attribute ? "" : input == 1 ? "starts" : "ends";
    tracer.AddSize({&node, input, name, range.element, atoms.Sum(covered), from_end});
  };
  if (range.start > 0) use(1, 0, mine, false);
  if (range.start < 0) use(1, mine, parts->size(), true);
  if (range.end > 0 && end < size) use(2, 0, mine + 1, false);
  if (range.end < 0) use(2, mine + 1, parts->size(), true);
  return (*parts)[mine];
}

void Slice(AxisTracer& tracer, const Node& node) {
  const Axes* px = tracer.Find(node.input(0));
  if (!px) return tracer.Opaque(node, kUnknownRank);
  Axes out = *px;
  const auto sizes = tracer.Sizes(node.output(0));
  const auto starts = tracer.Integers(node, "starts", 1), ends = tracer.Integers(node, "ends", 2);
  bool no_axes = false;
  auto axes = tracer.Integers(node, "axes", 3, &no_axes);
  auto steps = tracer.Integers(node, "steps", 4);
  const ShapeNumbers* end_numbers = node.input(2) ? tracer.numbers.Find(node.input(2)) : nullptr;
  const size_t count = starts ? starts->size() : end_numbers ? end_numbers->elements.size() : 0;
  if (no_axes) {
    axes.emplace();
    for (size_t i = 0; i < count; ++i) axes->push_back(static_cast<int64_t>(i));
  }
  if (!axes || axes->size() != count) {
    return tracer.Opaque(node, "sliced where only running tells");
  }
  for (size_t i = 0; i < count; ++i) {
    const auto axis = FromFront((*axes)[i], out.size());
    if (!axis) return tracer.Opaque(node, kUnknownRank);
    AxisId& it = out[*axis];
    std::optional<AxisId> left;
    if (starts && ends && ends->size() == count) {
      const int64_t step = steps && i < steps->size() ? (*steps)[i] : 1;
      left = SliceAxis(tracer, node, it, {static_cast<int64_t>(i), (*starts)[i], (*ends)[i], step});
    }
    if (!left) {
      const std::string reason = "sliced by Slice";
      tracer.atoms().Freeze(it, reason);
      const bool known = sizes && sizes->size() == out.size();
      left = tracer.atoms().NewFrozen(known ? (*sizes)[*axis] : AxisAtoms::kOpen, reason);
    }
    it = *left;
  }
  tracer.Set(node.output(0), std::move(out));
}

void Gather(AxisTracer& tracer, const Node& node) {
  const Axes* pd = tracer.Find(node.input(0));
  const Axes* pi = tracer.Find(node.input(1));
  const auto axis = pd ? FromFront(node.GetInt("axis", 0), pd->size()) : std::nullopt;
  if (!axis || !pi) return tracer.Opaque(node, kUnknownRank);
  const Axes data = *pd, indices = *pi;
  const bool table = tracer.flow.IsWeight(node.input(0)) && !tracer.flow.IsWeight(node.input(1));
  tracer.atoms().Freeze(data[*axis],
                        table ? "looked up by index" : "one index of it is picked by Gather");
  Axes out(data.begin(), data.begin() + static_cast<long>(*axis));
  out.insert(out.end(), indices.begin(), indices.end());
  out.insert(out.end(), data.begin() + static_cast<long>(*axis) + 1, data.end());
  if (table) {
    for (size_t i = 0; i < data.size(); ++i) {
      if (i != *axis) tracer.Record(AxisRole::kProduced, node, data[i]);
    }
  }
  tracer.Set(node.output(0), std::move(out));
}

void Expand(AxisTracer& tracer, const Node& node) {
  const Axes* px = tracer.Find(node.input(0));
  const ShapeNumbers* target = node.input(1) ? tracer.numbers.Find(node.input(1)) : nullptr;
  if (!px || !target || target->scalar) return tracer.Opaque(node, "expanded to a computed shape");
  Axes out = *px;
  const std::vector<ShapeNumber> wanted = target->elements;
  if (wanted.size() > out.size()) {
    out.insert(out.begin(), wanted.size() - out.size(), AxisAtoms::kOne);
  }
  const size_t offset = out.size() - wanted.size();
  for (size_t i = 0; i < wanted.size(); ++i) {
    AxisId& it = out[offset + i];
    const bool grows = tracer.atoms().Same(it, AxisAtoms::kOne);
    if (grows && wanted[i].axis) {
      it = *wanted[i].axis;  // follows it by itself
      continue;
    }
    const std::optional<int64_t> size = wanted[i].integer();
    if (grows) it = tracer.atoms().NewLeaf(size ? *size : AxisAtoms::kOpen);
    if (size && *size != 1) {
      tracer.AddSize({&node, 1, "", static_cast<int64_t>(i), it});
    }
    if (!grows && wanted[i].axis) tracer.atoms().Unify(it, *wanted[i].axis);
  }
  tracer.Set(node.output(0), std::move(out));
}

void Tile(AxisTracer& tracer, const Node& node) {
  const Axes* px = tracer.Find(node.input(0));
  const auto repeats = tracer.numbers.Integers(node.input(1));
  if (!px || !repeats || repeats->size() != px->size()) {
    return tracer.Opaque(node, "tiled by a computed number");
  }
  Axes out = *px;
  for (size_t i = 0; i < out.size(); ++i) {
    const int64_t times = (*repeats)[i];
    if (times == 1) continue;
    if (!tracer.atoms().Same(out[i], AxisAtoms::kOne)) {
      const int64_t size = tracer.atoms().size(out[i]);
      tracer.atoms().Freeze(out[i], "tiled");
      int64_t tiled = AxisAtoms::kOpen;
      if (size == AxisAtoms::kOpen || __builtin_mul_overflow(size, times, &tiled)) {
        tiled = AxisAtoms::kOpen;
      }
      out[i] = tracer.atoms().NewFrozen(tiled, "tiled");
      continue;
    }
    out[i] = tracer.atoms().NewLeaf(times);
    tracer.AddSize({&node, 1, "", static_cast<int64_t>(i), out[i]});
  }
  tracer.Set(node.output(0), std::move(out));
}

void Pad(AxisTracer& tracer, const Node& node) {
  const Axes* px = tracer.Find(node.input(0));
  const auto pads = tracer.Integers(node, "pads", 1);
  const auto sizes = tracer.Sizes(node.output(0));
  if (!px || !pads || pads->size() != 2 * px->size() || node.input(3)) {
    return tracer.Opaque(node, "padded");
  }
  Axes out = *px;
  for (size_t i = 0; i < out.size(); ++i) {
    if ((*pads)[i] == 0 && (*pads)[i + out.size()] == 0) continue;
    tracer.atoms().Freeze(out[i], "padded");
    const bool known = sizes && sizes->size() == out.size();
    out[i] = tracer.atoms().NewFrozen(known ? (*sizes)[i] : AxisAtoms::kOpen, "padded");
  }
  tracer.Set(node.output(0), std::move(out));
}

// A vector of sizes carries no axis of its input.
void ShapeOf(AxisTracer& tracer, const Node& node) {
  const ShapeNumbers* known = tracer.numbers.Find(node.output(0));
  if (!known) return tracer.SetFrozen(node.output(0), "a shape");
  tracer.Set(node.output(0),
             {tracer.atoms().NewFrozen(static_cast<int64_t>(known->elements.size()), "a shape")});
}

void SizeOf(AxisTracer& tracer, const Node& node) {
  tracer.FreezeAll(node.input(0), "its size is used as a number");
  tracer.Set(node.output(0), {});
}

void ConstantOfShape(AxisTracer& tracer, const Node& node) {
  const ShapeNumbers* target = tracer.numbers.Find(node.input(0));
  if (!target) return tracer.SetFrozen(node.output(0), "of a computed shape");
  Axes out;
  const std::vector<ShapeNumber> wanted = target->elements;
  for (size_t i = 0; i < wanted.size(); ++i) {
    const std::optional<int64_t> size = wanted[i].integer();
    if (wanted[i].axis) {
      out.push_back(*wanted[i].axis);
      continue;
    }
    out.push_back(tracer.atoms().NewLeaf(size ? *size : AxisAtoms::kOpen));
    if (size) tracer.AddSize({&node, 0, "", static_cast<int64_t>(i), out.back()});
  }
  tracer.Set(node.output(0), std::move(out));
}

// From 0 to the size of an axis: as long as that axis, else of an own length.
void Range_(AxisTracer& tracer, const Node& node) {
  const ShapeNumbers* limit = tracer.numbers.Find(node.input(1));
  const bool whole = tracer.numbers.Integer(node.input(0)) == 0 &&
                     tracer.numbers.Integer(node.input(2)) == 1 && limit &&
                     limit->elements.size() == 1 && limit->elements[0].axis;
  for (const Value* input : node.inputs()) tracer.FreezeNumbers(input);
  if (whole) return tracer.Set(node.output(0), {*limit->elements[0].axis});
  tracer.SetFrozen(node.output(0), "a computed range");
}

}  // namespace

const std::unordered_map<std::string_view, AxisRule>& ShapeRules() {
  static const std::unordered_map<std::string_view, AxisRule> table = {
      {"Reshape", Reshape}, {"Flatten", Flatten},     {"Transpose", Transpose},
      {"Squeeze", Squeeze}, {"Unsqueeze", Unsqueeze}, {"Concat", Concat},
      {"Split", Split},     {"Slice", Slice},         {"Gather", Gather},
      {"Expand", Expand},   {"Tile", Tile},           {"Pad", Pad},
      {"Shape", ShapeOf},   {"Size", SizeOf},         {"ConstantOfShape", ConstantOfShape},
      {"Range", Range_}};
  return table;
}

}  // namespace sparsefuse

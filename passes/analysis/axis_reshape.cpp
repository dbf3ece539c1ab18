// The input's axes are one list of factors in row-major order, the target's sizes another. Both are
// walked from the left and from the right; a factor that a size boundary falls inside is split.
// What is left between the two walks belongs to the one size that is −1 or known only when running;
// if several are left, nobody can tell, and it is frozen.

#include "passes/analysis/axis_reshape.h"

#include <algorithm>
#include <deque>

namespace sparsefuse {
namespace {

struct Target {
  std::optional<int64_t> size;  // nullopt: inferred, or known only when running
  std::optional<AxisId> axis;   // it is this axis's size, and follows it
};

class Matcher {
 public:
  Matcher(AxisAtoms& atoms, const Axes& input, std::vector<Target> targets)
      : atoms_(atoms), targets_(std::move(targets)), out_(targets_.size(), AxisAtoms::kOne) {
    for (const AxisId axis : input) {
      for (const AxisId factor : atoms_.Factors(axis)) factors_.push_back(factor);
    }
    written_.assign(targets_.size(), false);
  }

  void Match() {
    size_t left = 0, right = targets_.size();
    while (left < right && Take(left, Side::kLeft)) ++left;
    while (left < right && Take(right - 1, Side::kRight)) --right;
    Middle(left, right);
  }

  const Axes& out() const { return out_; }
  // Whether the size is a number of its own that must follow the axis.
  bool written(size_t i) const { return written_[i]; }

 private:
  enum class Side { kLeft, kRight };

  AxisId Next(Side side) const { return side == Side::kLeft ? factors_.front() : factors_.back(); }
  void Pop(Side side) {
    if (side == Side::kLeft) {
      factors_.pop_front();
    } else {
      factors_.pop_back();
    }
  }
  void Push(Side side, AxisId factor) {
    if (factor == AxisAtoms::kOne) return;
    if (side == Side::kLeft) {
      factors_.push_front(factor);
    } else {
      factors_.push_back(factor);
    }
  }

  // The next factors are exactly the axis that the size comes from.
  bool TakeSame(size_t i, Side side) {
    const std::vector<AxisId> wanted = atoms_.Factors(*targets_[i].axis);
    if (wanted.empty() || wanted.size() > factors_.size()) return false;
    const size_t offset = side == Side::kLeft ? 0 : factors_.size() - wanted.size();
    for (size_t k = 0; k < wanted.size(); ++k) {
      if (!atoms_.Same(wanted[k], factors_[offset + k])) return false;
    }
    for (size_t k = 0; k < wanted.size(); ++k) Pop(side);
    out_[i] = *targets_[i].axis;
    return true;
  }

  bool Take(size_t i, Side side) {
    if (targets_[i].axis && TakeSame(i, side)) return true;
    if (!targets_[i].size) return false;
    std::vector<AxisId> taken;
    const auto undo = [&] {
      for (; !taken.empty(); taken.pop_back()) Push(side, taken.back());
      return false;
    };
    for (int64_t need = *targets_[i].size; need != 1;) {
      if (factors_.empty() || need <= 0) return undo();
      const AxisId factor = Next(side);
      const int64_t size = atoms_.size(factor);
      if (size == AxisAtoms::kOpen) return undo();
      if (need % size == 0) {
        Pop(side);
        taken.push_back(factor);
        need /= size;
        continue;
      }
      if (size % need != 0) return undo();
      const int64_t inner = side == Side::kLeft ? size / need : need;
      const auto pair = atoms_.SplitInner(factor, inner);
      if (!pair) return undo();
      Pop(side);
      Push(side, side == Side::kLeft ? pair->inner : pair->outer);
      taken.push_back(side == Side::kLeft ? pair->outer : pair->inner);
      need = 1;
    }
    if (side == Side::kRight) std::reverse(taken.begin(), taken.end());
    out_[i] = atoms_.Prod(taken);
    written_[i] = true;
    return true;
  }

  void Middle(size_t left, size_t right) {
    const std::vector<AxisId> rest(factors_.begin(), factors_.end());
    if (left == right) {
      for (const AxisId factor : rest) atoms_.Freeze(factor, kReason);
      return;
    }
    if (right - left == 1) {
      out_[left] = atoms_.Prod(rest);
      written_[left] = targets_[left].size.has_value();
      return;
    }
    for (const AxisId factor : rest) atoms_.Freeze(factor, kReason);
    for (size_t i = left; i < right; ++i) {
      out_[i] = atoms_.NewFrozen(targets_[i].size.value_or(AxisAtoms::kOpen), kReason);
    }
  }

  static inline const std::string kReason = "reshaped across its boundaries";

  AxisAtoms& atoms_;
  std::vector<Target> targets_;
  std::deque<AxisId> factors_;
  Axes out_;
  std::vector<bool> written_;
};

// The target of a Reshape: 0 copies, −1 is inferred.
std::optional<std::vector<Target>> Targets(AxisTracer& tracer, const Node& node, const Axes& x) {
  std::vector<ShapeNumber> wanted;
  if (node.attribute("shape")) {  // opset 1
    for (const int64_t size : node.GetInts("shape", {})) {
      wanted.push_back({.value = static_cast<double>(size)});
    }
  } else {
    const ShapeNumbers* numbers = tracer.numbers.Find(node.input(1));
    if (!numbers || numbers->scalar) return std::nullopt;
    wanted = numbers->elements;
  }
  const bool copies = node.GetInt("allowzero", 0) == 0;
  std::vector<Target> targets;
  for (size_t i = 0; i < wanted.size(); ++i) {
    Target target{wanted[i].integer(), wanted[i].axis};
    if (copies && target.size == 0 && i < x.size()) {
      const int64_t size = tracer.atoms().size(x[i]);
      target = {size == AxisAtoms::kOpen ? std::nullopt : std::optional(size), x[i]};
    }
    if (target.size && *target.size < 0) target = {};
    targets.push_back(target);
  }
  return targets;
}

}  // namespace

void Reshape(AxisTracer& tracer, const Node& node) {
  const Axes* px = tracer.Find(node.input(0));
  if (!px) return tracer.Opaque(node, "meets a tensor of unknown rank");
  const Axes x = *px;
  const auto targets = Targets(tracer, node, x);
  if (!targets) return tracer.Opaque(node, "reshaped to a computed shape");
  Matcher matcher(tracer.atoms(), x, *targets);
  matcher.Match();
  tracer.Set(node.output(0), matcher.out());
  const std::string attribute = node.attribute("shape") ? "shape" : "";
  for (size_t i = 0; i < targets->size(); ++i) {
    // A copied size follows only if it is still the axis that it copies.
    if (!matcher.written(i)) continue;
    tracer.AddSize({&node, 1, attribute, static_cast<int64_t>(i), matcher.out()[i]});
  }
}

void Flatten(AxisTracer& tracer, const Node& node) {
  const Axes* px = tracer.Find(node.input(0));
  if (!px) return tracer.Opaque(node, "meets a tensor of unknown rank");
  const Axes x = *px;
  const int64_t axis = node.GetInt("axis", 1);
  const auto at =
      static_cast<long>(std::min(x.size(), FromFront(axis, x.size()).value_or(x.size())));
  const Axes outer(x.begin(), x.begin() + at), inner(x.begin() + at, x.end());
  tracer.Set(node.output(0), {tracer.atoms().Prod(outer), tracer.atoms().Prod(inner)});
}

}  // namespace sparsefuse

#include "passes/analysis/axis_atoms.h"

#include <algorithm>
#include <utility>

#include "onnx_io/error.h"

namespace sparsefuse {
namespace {

const std::string kOpenReason = "its size is not fixed in the file";

}  // namespace

AxisAtoms::AxisAtoms() { Add({Kind::kLeaf, 0, 1, {}, "size 1"}); }

AxisId AxisAtoms::Add(Axis axis) {
  axis.bound = static_cast<AxisId>(axes_.size());
  axes_.push_back(std::move(axis));
  return axes_.back().bound;
}

AxisId AxisAtoms::NewLeaf(int64_t size) {
  if (size == 1) return kOne;
  const bool known = size > 0;
  return Add({Kind::kLeaf, 0, known ? size : kOpen, {}, known ? "" : kOpenReason});
}

AxisId AxisAtoms::NewFrozen(int64_t size, const std::string& reason) {
  const AxisId leaf = NewLeaf(size);
  if (leaf != kOne) axes_[leaf].reason = reason;
  return leaf;
}

AxisId AxisAtoms::Prod(std::span<const AxisId> factors) {
  std::vector<AxisId> parts;
  int64_t product = 1;
  for (const AxisId factor : factors) {
    for (const AxisId part : Factors(factor)) {
      parts.push_back(part);
      const int64_t part_size = size(part);
      const bool open = product == kOpen || part_size == kOpen ||
                        __builtin_mul_overflow(product, part_size, &product);
      if (open) product = kOpen;
    }
  }
  if (parts.empty()) return kOne;
  if (parts.size() == 1) return parts[0];
  return Add({Kind::kProd, 0, product, std::move(parts), ""});
}

AxisId AxisAtoms::Sum(std::span<const AxisId> terms) {
  SF_CHECK(!terms.empty(), "a sum of nothing");
  if (terms.size() == 1) return Find(terms[0]);
  int64_t total = 0;
  for (const AxisId term : terms) {
    const int64_t part = size(term);
    const bool open =
        total == kOpen || part == kOpen || __builtin_add_overflow(total, part, &total);
    if (open) total = kOpen;
  }
  return Add({Kind::kSum, 0, total, {terms.begin(), terms.end()}, ""});
}

AxisId AxisAtoms::Find(AxisId axis) const {
  while (axes_[axis].bound != axis) axis = axes_[axis].bound;
  return axis;
}

int64_t AxisAtoms::size(AxisId axis) const { return axes_[Find(axis)].size; }

std::vector<AxisId> AxisAtoms::Factors(AxisId axis) const {
  axis = Find(axis);
  if (axis == kOne) return {};
  if (axes_[axis].kind != Kind::kProd) return {axis};
  std::vector<AxisId> factors;
  for (const AxisId part : axes_[axis].parts) {
    const std::vector<AxisId> inner = Factors(part);
    factors.insert(factors.end(), inner.begin(), inner.end());
  }
  return factors;
}

std::vector<AxisId> AxisAtoms::Terms(AxisId axis) const {
  axis = Find(axis);
  if (axes_[axis].kind != Kind::kSum) return {axis};
  std::vector<AxisId> terms;
  for (const AxisId part : axes_[axis].parts) {
    const std::vector<AxisId> inner = Terms(part);
    terms.insert(terms.end(), inner.begin(), inner.end());
  }
  return terms;
}

void AxisAtoms::AppendLeaves(AxisId axis, std::vector<bool>& seen,
                             std::vector<AxisId>& leaves) const {
  axis = Find(axis);
  if (axis == kOne || seen[axis]) return;
  seen[axis] = true;
  if (axes_[axis].kind == Kind::kLeaf) leaves.push_back(axis);
  for (const AxisId part : axes_[axis].parts) AppendLeaves(part, seen, leaves);
}

std::vector<AxisId> AxisAtoms::Leaves(AxisId axis) const {
  axis = Find(axis);
  if (axis == kOne) return {};
  if (axes_[axis].kind == Kind::kLeaf) return {axis};
  std::vector<bool> seen(axes_.size());
  std::vector<AxisId> leaves;
  AppendLeaves(axis, seen, leaves);
  return leaves;
}

void AxisAtoms::Freeze(AxisId axis, const std::string& reason) {
  for (const AxisId leaf : Leaves(axis)) {
    if (axes_[leaf].reason.empty()) axes_[leaf].reason = reason;
  }
}

const std::string& AxisAtoms::frozen(AxisId leaf) const { return axes_[Find(leaf)].reason; }

void AxisAtoms::Bind(AxisId from, AxisId to) {
  from = Find(from);
  to = Find(to);
  if (from == to) return;
  const std::string reason = std::move(axes_[from].reason);
  axes_[from].bound = to;
  axes_[from].parts.clear();
  if (!reason.empty()) Freeze(to, reason);
}

std::optional<AxisAtoms::Pair> AxisAtoms::SplitInner(AxisId axis, int64_t inner) {
  axis = Find(axis);
  const int64_t total = size(axis);
  if (inner == 1) return Pair{axis, kOne};
  if (total == kOpen || total % inner != 0) return std::nullopt;
  if (inner == total) return Pair{kOne, axis};
  switch (axes_[axis].kind) {
    case Kind::kLeaf: {
      const Pair pair = {NewLeaf(total / inner), NewLeaf(inner)};
      Bind(axis, Prod(std::vector{pair.outer, pair.inner}));
      return pair;
    }
    case Kind::kProd: {
      std::vector<AxisId> left = Factors(axis), right;
      while (inner > 1) {
        const AxisId last = left.back();
        left.pop_back();
        const int64_t last_size = size(last);
        if (inner % last_size == 0) {
          right.insert(right.begin(), last);
          inner /= last_size;
          continue;
        }
        const std::optional<Pair> pair = SplitInner(last, inner);
        if (!pair) return std::nullopt;
        left.push_back(pair->outer);
        right.insert(right.begin(), pair->inner);
        break;
      }
      return Pair{Prod(left), Prod(right)};
    }
    case Kind::kSum: {
      const std::vector<AxisId> terms = Terms(axis);
      for (const AxisId term : terms) {
        if (size(term) % inner != 0) return std::nullopt;
      }
      std::vector<AxisId> outers;
      std::optional<AxisId> shared;
      for (const AxisId term : terms) {
        const std::optional<Pair> pair = SplitInner(term, inner);
        if (!pair) return std::nullopt;
        if (shared) Unify(*shared, pair->inner);
        shared = pair->inner;
        outers.push_back(pair->outer);
      }
      const Pair pair = {Sum(outers), *shared};
      Bind(axis, Prod(std::vector{pair.outer, pair.inner}));
      return pair;
    }
  }
  return std::nullopt;
}

std::optional<std::vector<AxisId>> AxisAtoms::Partition(AxisId axis,
                                                        std::span<const int64_t> sizes) {
  axis = Find(axis);
  int64_t total = 0;
  for (const int64_t part : sizes) {
    if (part <= 0 || __builtin_add_overflow(total, part, &total)) return std::nullopt;
  }
  if (total != size(axis)) return std::nullopt;
  if (sizes.size() == 1) return std::vector{axis};
  std::vector<AxisId> pieces;
  switch (axes_[axis].kind) {
    case Kind::kLeaf:
      for (const int64_t part : sizes) pieces.push_back(NewLeaf(part));
      Bind(axis, Sum(pieces));
      return pieces;
    case Kind::kProd: {
      const std::vector<AxisId> factors = Factors(axis);
      const int64_t inner = total / size(factors[0]);
      std::vector<int64_t> outer_sizes;
      for (const int64_t part : sizes) {
        if (part % inner != 0) return std::nullopt;
        outer_sizes.push_back(part / inner);
      }
      const auto outers = Partition(factors[0], outer_sizes);
      if (!outers) return std::nullopt;
      for (const AxisId outer : *outers) {
        std::vector<AxisId> piece = factors;
        piece[0] = outer;
        pieces.push_back(Prod(piece));
      }
      return pieces;
    }
    case Kind::kSum: {
      std::vector<AxisId> rest = Terms(axis);
      std::reverse(rest.begin(), rest.end());  // the next term is at the back
      for (const int64_t part : sizes) {
        std::vector<AxisId> piece;
        for (int64_t need = part; need > 0;) {
          AxisId term = rest.back();
          rest.pop_back();
          const int64_t term_size = size(term);
          if (term_size > need) {
            const auto halves = Partition(term, std::vector{need, term_size - need});
            if (!halves) return std::nullopt;
            rest.push_back((*halves)[1]);
            term = (*halves)[0];
          }
          need -= std::min(need, term_size);
          piece.push_back(term);
        }
        pieces.push_back(Sum(piece));
      }
      return pieces;
    }
  }
  return std::nullopt;
}

bool AxisAtoms::UnifyProducts(AxisId a, AxisId b) {
  std::vector<AxisId> fa = Factors(a), fb = Factors(b);
  const auto open = [&](AxisId axis) { return size(axis) == kOpen; };
  if (std::any_of(fa.begin(), fa.end(), open) || std::any_of(fb.begin(), fb.end(), open)) {
    // Where sizes are unknown only the same number of factors tells which belongs to which.
    if (fa.size() != fb.size()) return false;
    for (size_t i = 0; i < fa.size(); ++i) Unify(fa[i], fb[i]);
    return true;
  }
  size_t i = 0, j = 0;
  while (i < fa.size() && j < fb.size()) {
    const int64_t sa = size(fa[i]), sb = size(fb[j]);
    if (sa == sb) {
      Unify(fa[i++], fb[j++]);
      continue;
    }
    const bool split_a = sa > sb;
    const int64_t large = std::max(sa, sb), small = std::min(sa, sb);
    if (large % small != 0) return false;
    AxisId& whole = split_a ? fa[i] : fb[j];
    const auto pair = SplitInner(whole, large / small);
    if (!pair) return false;
    Unify(pair->outer, split_a ? fb[j] : fa[i]);
    whole = pair->inner;
    ++(split_a ? j : i);
  }
  return i == fa.size() && j == fb.size();
}

// At least one is a sum: both are cut at the boundaries of both.
bool AxisAtoms::UnifySums(AxisId a, AxisId b) {
  std::vector<int64_t> ends;
  for (const AxisId axis : {a, b}) {
    int64_t end = 0;
    for (const AxisId term : Terms(axis)) ends.push_back(end += size(term));
  }
  // A product has no boundaries of its own here; its one term ends with the axis.
  std::sort(ends.begin(), ends.end());
  ends.erase(std::unique(ends.begin(), ends.end()), ends.end());
  std::vector<int64_t> sizes;
  for (int64_t begin = 0; const int64_t end : ends)
    sizes.push_back(end - std::exchange(begin, end));
  const auto pa = Partition(a, sizes);
  const auto pb = pa ? Partition(b, sizes) : std::nullopt;
  if (!pb) return false;
  for (size_t i = 0; i < sizes.size(); ++i) Unify((*pa)[i], (*pb)[i]);
  return true;
}

bool AxisAtoms::UnifyComposites(AxisId a, AxisId b) {
  if (axes_[a].kind == Kind::kProd && axes_[b].kind == Kind::kProd) return UnifyProducts(a, b);
  if (size(a) == kOpen || size(b) == kOpen) return false;
  return UnifySums(a, b);
}

void AxisAtoms::Unify(AxisId a, AxisId b) {
  a = Find(a);
  b = Find(b);
  if (a == b) return;
  const int64_t sa = size(a), sb = size(b);
  const bool open = sa == kOpen || sb == kOpen;
  const bool leaf_a = axes_[a].kind == Kind::kLeaf, leaf_b = axes_[b].kind == Kind::kLeaf;
  if (a != kOne && b != kOne && (open || sa == sb)) {
    if (leaf_a && leaf_b) return sa == kOpen ? Bind(a, b) : Bind(b, a);
    if (!open && leaf_a) return Bind(a, b);
    if (!open && leaf_b) return Bind(b, a);
    if (!leaf_a && !leaf_b && UnifyComposites(a, b)) return Bind(a, b);
  }
  const std::string reason = open ? kOpenReason : "its parts do not line up with another axis";
  Freeze(a, reason);
  Freeze(b, reason);
}

std::vector<int64_t> AxisAtoms::Positions(AxisId axis, AxisId leaf) const {
  axis = Find(axis);
  leaf = Find(leaf);
  const Axis& it = axes_[axis];
  SF_CHECK(it.size != kOpen, "positions of an open axis");
  if (it.kind == Kind::kLeaf) {
    std::vector<int64_t> positions(static_cast<size_t>(it.size), kNoUnit);
    if (axis == leaf && axis != kOne) {
      for (size_t i = 0; i < positions.size(); ++i) positions[i] = static_cast<int64_t>(i);
    }
    return positions;
  }
  std::vector<int64_t> positions;
  if (it.kind == Kind::kProd) positions.push_back(kNoUnit);
  for (const AxisId part : it.parts) {
    const std::vector<int64_t> inner = Positions(part, leaf);
    if (it.kind == Kind::kSum) {
      positions.insert(positions.end(), inner.begin(), inner.end());
      continue;
    }
    std::vector<int64_t> product;
    product.reserve(positions.size() * inner.size());
    for (const int64_t o : positions) {
      for (const int64_t i : inner) {
        product.push_back(o == kNoUnit ? i : i == kNoUnit ? o : kTwice);
      }
    }
    positions = std::move(product);
  }
  return positions;
}

}  // namespace sparsefuse

// Axes as expressions over atoms: the algebra behind the discovery of what can be pruned.
//
// An atom (leaf) is a dimension of its own. An axis is a leaf, a product of axes (what Reshape
// merges, the outermost factor first) or a sum of axes (what Concat joins, in order). Operators
// tell that two axes are the same one (Unify), that an axis consists of pieces (Partition,
// SplitInner), or that its positions must stay as they are (Freeze). A leaf that turns out to be a
// product or a sum is bound to that expression for good, so everything that runs through it
// follows.
//
// Invariants: a bound leaf's expression has smaller parts, so expressions are finite; axes of size
// 1 are all kOne, vanish in products, and keep their place in sums.

#ifndef SPARSEFUSE_PASSES_ANALYSIS_AXIS_ATOMS_H_
#define SPARSEFUSE_PASSES_ANALYSIS_AXIS_ATOMS_H_

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace sparsefuse {

using AxisId = int;

class AxisAtoms {
 public:
  static constexpr AxisId kOne = 0;     // every axis of size 1
  static constexpr int64_t kOpen = -1;  // a size that the file leaves open, or that is not known

  AxisAtoms();

  // kOne for size 1. An open leaf, and one of size 0, starts frozen.
  AxisId NewLeaf(int64_t size);
  AxisId NewFrozen(int64_t size, const std::string& reason);
  AxisId Prod(std::span<const AxisId> factors);  // of nothing: kOne
  AxisId Sum(std::span<const AxisId> terms);     // not empty

  int64_t size(AxisId axis) const;  // kOpen if any part is open
  // The leaves in it, outermost first, each once.
  std::vector<AxisId> Leaves(AxisId axis) const;
  // Products taken apart; the factors are leaves and sums. Empty for kOne.
  std::vector<AxisId> Factors(AxisId axis) const;
  bool Same(AxisId a, AxisId b) const { return Find(a) == Find(b); }

  // Every leaf in it. The first reason stays.
  void Freeze(AxisId axis, const std::string& reason);
  const std::string& frozen(AxisId leaf) const;  // empty: free

  // The two are one axis from now on. Where they cannot be brought to one expression (sizes that
  // disagree, boundaries that cross, open sizes inside), both are frozen.
  void Unify(AxisId a, AxisId b);

  // The consecutive pieces of these sizes (> 0, together the axis); nullopt where a boundary would
  // cut through a product's inner factors, or sizes are open. Nothing is frozen then.
  std::optional<std::vector<AxisId>> Partition(AxisId axis, std::span<const int64_t> sizes);

  struct Pair {
    AxisId outer, inner;
  };
  // The axis as outer × inner with `inner` (> 0) positions inside; nullopt as above.
  std::optional<Pair> SplitInner(AxisId axis, int64_t inner);

  // For each position of the axis the index along `leaf` that it belongs to, kNoUnit where none,
  // kTwice where the leaf occurs twice in one product. The size must not be open.
  static constexpr int64_t kNoUnit = -1, kTwice = -2;
  std::vector<int64_t> Positions(AxisId axis, AxisId leaf) const;

 private:
  enum class Kind { kLeaf, kProd, kSum };
  struct Axis {
    Kind kind;
    AxisId bound;  // itself: not bound
    int64_t size;
    std::vector<AxisId> parts;
    std::string reason;
  };

  AxisId Find(AxisId axis) const;
  AxisId Add(Axis axis);
  void Bind(AxisId from, AxisId to);
  std::vector<AxisId> Terms(AxisId axis) const;
  void AppendLeaves(AxisId axis, std::vector<bool>& seen, std::vector<AxisId>& leaves) const;
  bool UnifyProducts(AxisId a, AxisId b);
  bool UnifySums(AxisId a, AxisId b);
  bool UnifyComposites(AxisId a, AxisId b);

  std::vector<Axis> axes_;
};

}  // namespace sparsefuse

#endif  // SPARSEFUSE_PASSES_ANALYSIS_AXIS_ATOMS_H_

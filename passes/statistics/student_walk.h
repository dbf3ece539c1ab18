// A walk through a model from one cut to the next while its products change: each is solved on what
// the student, as changed so far, feeds it, and judged by what the segment makes of it.

#ifndef SPARSEFUSE_PASSES_STATISTICS_STUDENT_WALK_H_
#define SPARSEFUSE_PASSES_STATISTICS_STUDENT_WALK_H_

#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "passes/statistics/gram.h"

namespace sparsefuse {

// A product's X in the student and D = V − V̂, a tensor's rows in the original less the student's.
struct Drift {
  Eigen::MatrixXd cross;  // [n, m] Σ (x̂ − mean)(d − mean)ᵀ
  Eigen::VectorXd mean;   // [m] of D
};

// What a product's output should be, as moments with its X in the student, divided by the rows.
struct OutputTarget {
  Eigen::MatrixXd cross;  // [n, m], centred
  Eigen::VectorXd mean;   // [m], bias included
};

enum class Side { kTeacher, kStudent };  // the original, the changed model

struct WalkSamples {
  std::vector<int64_t> fit, select;
};

class StudentWalk {
 public:
  // Through `model`, which must outlive the walk. `products`: all that will change. On all samples
  // of both splits, or on those given. Needs context.calibration.
  StudentWalk(const Model& model, std::span<const MatrixView> products, const Context& context);
  StudentWalk(const Model& model, std::span<const MatrixView> products, const WalkSamples& samples,
              const Context& context);

  // To the segment of `node`, of the original; nodes in topological order.
  void Reach(const Node& node);
  size_t Place(const Node& node) const { return order_.at(&node); }  // in topological order

  // The segment that has been reached, and what feeds it.
  Model Part(Side side) const;
  const Batches& Fit(Side side) const { return Fed(side).fit; }
  const Batches& Select(Side side) const { return Fed(side).select; }
  const std::optional<std::string>& mask() const { return mask_; }

  // Of a product's X in the segment that has been reached: the original's and the student's, on the
  // fit split. Products that read one tensor, one after the other, share them.
  const PairStatistics& Inputs(const MatrixView& product);

  // What a product's output would have to change by for the residual stream that it is added to to
  // be the original's. Nothing where no such stream follows within the segment.
  std::optional<Drift> DriftAfter(const MatrixView& product);

  // What a product of the segment may be asked for: with Ĥ what the student has and C what it has
  // in common with the original, (αC + (1 − α)Ĥ)W for α of 0 (what it gives as it is), ½ and 1,
  // and, where it is added to a residual stream, what brings that half or all the way back to the
  // original's. Only the first if it met fewer than 4 rows of data an input.
  std::vector<OutputTarget> Targets(const MatrixView& product);

  // Mean square of what the segment's outputs differ by from the original's on the select split,
  // over their mean square, if the student were `candidate`.
  double Error(const Model& candidate);

  const Model& student() const { return student_; }
  // `changed`: the student with the segment's weights changed.
  void Accept(Model changed);
  // The solution that leaves the least error becomes the student's; `may_stay`: what it has
  // competes. Which one it was; none: it stays as it is.
  std::optional<size_t> TakeBest(const MatrixView& product, std::span<const Refit> solutions,
                                 bool may_stay);
  Model Finish() { return std::move(student_); }

 private:
  struct Feeding {  // a model's feeds at the cut that has been reached
    Batches fit, select;
  };

  void Advance(const std::string& to);
  const Feeding& Fed(Side side) const {
    return side == Side::kTeacher ? teacher_feeds_ : student_feeds_;
  }

  const Model& teacher_;
  Model student_;
  const Context& context_;
  std::map<const Node*, size_t> order_;
  std::vector<std::string> ends_;  // of the segments; the last one ends at the outputs: ""
  size_t segment_ = 0;
  std::string from_;
  std::optional<std::string> mask_;
  Feeding teacher_feeds_, student_feeds_;
  bool changed_ = false;
  std::string tensor_;  // whose statistics inputs_ are; empty: none
  PairStatistics inputs_;
  std::vector<std::vector<Tensor>> expected_;  // of this segment, on the select split
};

// W' for each of several right-hand sides Z [n, m], of one H [n, n].
using SolveWeights = std::function<std::vector<Eigen::MatrixXd>(
    const Eigen::MatrixXd& h, std::span<const Eigen::MatrixXd> rights)>;

// One a target, of moments Z and z: `solve` is given Ĥ and every Z, and b' = z − μ̂ᵀW'. Without a
// bias that may change, moments are about zero instead, and b' = b.
std::vector<Refit> SolveTargets(const MatrixView& product, const PairStatistics& pair,
                                std::span<const OutputTarget> targets, bool with_bias,
                                const SolveWeights& solve);

// Of a product that keeps all its inputs: W' = (Ĥ + λI)⁻¹ (Z + λW).
std::vector<Refit> SolveWhole(const MatrixView& product, const PairStatistics& pair,
                              std::span<const OutputTarget> targets, bool with_bias);

// The product that `node` is, if it may be solved anew to make up for others: its weight is its
// own, and the configuration does not exclude it.
std::optional<MatrixView> ResolvableMatrix(const Node& node, const Context& context);

}  // namespace sparsefuse

#endif  // SPARSEFUSE_PASSES_STATISTICS_STUDENT_WALK_H_

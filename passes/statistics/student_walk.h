// A walk through a model from one cut to the next while its products change: each is solved on what
// the student, as changed so far, feeds it, and judged by what the segment makes of it.

#ifndef SPARSEFUSE_PASSES_STATISTICS_STUDENT_WALK_H_
#define SPARSEFUSE_PASSES_STATISTICS_STUDENT_WALK_H_

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

class StudentWalk {
 public:
  // Through `model`, which must outlive the walk. `products`: all that will change. Needs
  // context.calibration.
  StudentWalk(const Model& model, std::span<const MatrixView> products, const Context& context);

  // To the segment of `node`, of the original; nodes in topological order.
  void Reach(const Node& node);
  size_t Place(const Node& node) const { return order_.at(&node); }  // in topological order

  // Of a product's X in the segment that has been reached: the original's and the student's, on the
  // fit split. Products that read one tensor, one after the other, share them.
  const PairStatistics& Inputs(const MatrixView& product);

  // What a product's output would have to change by for the residual stream that it is added to to
  // be the original's. Nothing where no such stream follows within the segment.
  std::optional<Drift> DriftAfter(const MatrixView& product);

  // Mean square of what the segment's outputs differ by from the original's on the select split,
  // over their mean square, if the student were `candidate`.
  double Error(const Model& candidate);

  const Model& student() const { return student_; }
  // `changed`: the student with the segment's weights changed.
  void Accept(Model changed);
  Model Finish() { return std::move(student_); }

 private:
  struct Feeding {  // a model's feeds at the cut that has been reached
    Batches fit, select;
  };

  void Advance(const std::string& to);

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

}  // namespace sparsefuse

#endif  // SPARSEFUSE_PASSES_STATISTICS_STUDENT_WALK_H_

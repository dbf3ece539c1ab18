#include "passes/statistics/student_walk.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "passes/statistics/cuts.h"
#include "passes/statistics/dense.h"

namespace sparsefuse {
namespace {

using Eigen::MatrixXd;
using Eigen::VectorXd;

// What becomes of `output` when all that is done to it is to add to it, up to `end`.
const Value* SumWith(const Value* output, const std::string& end) {
  const Value* sum = output;
  while (sum->name() != end && sum->has_single_use() && sum->uses()[0].node->Is("Add")) {
    sum = sum->uses()[0].node->output(0);
  }
  return sum;
}

}  // namespace

StudentWalk::StudentWalk(const Model& model, std::span<const MatrixView> products,
                         const Context& context)
    : StudentWalk(model, products, {context.splits.fit, context.splits.select}, context) {}

StudentWalk::StudentWalk(const Model& model, std::span<const MatrixView> products,
                         const WalkSamples& samples, const Context& context)
    : teacher_(model), student_(model.Clone()), context_(context), ends_(FindCuts(model)) {
  ends_.emplace_back();
  for (const Node* node : model.graph().TopologicalOrder()) order_.emplace(node, order_.size());
  const int64_t batch = ChooseBatch(teacher_, products, context_);
  const Dataset& data = *context_.calibration;
  teacher_feeds_ = {MakeBatches(data, samples.fit, batch),
                    MakeBatches(data, samples.select, batch)};
  mask_ = FindPaddingMask(teacher_, teacher_feeds_.fit);
  student_feeds_ = teacher_feeds_;
}

Model StudentWalk::Part(Side side) const {
  return Segment(side == Side::kTeacher ? teacher_ : student_, from_, ends_[segment_]);
}

// To the next cut: its tensor takes the last one's place among the feeds.
void StudentWalk::Advance(const std::string& to) {
  const auto step = [&](const Model& model, Batches& batches) {
    const Model segment = Segment(model, from_, to);
    std::vector<std::vector<Tensor>> results = RunBatches({segment, batches, {to}}, context_);
    for (size_t b = 0; b < batches.size(); ++b) {
      std::erase_if(batches[b], [&](const auto& feed) { return feed.first == from_; });
      batches[b].emplace_back(to, std::move(results[b][0]));
    }
  };
  for (Batches Feeding::*split : {&Feeding::fit, &Feeding::select}) {
    step(teacher_, teacher_feeds_.*split);
    if (changed_) {
      step(student_, student_feeds_.*split);
    } else {
      student_feeds_.*split = teacher_feeds_.*split;
    }
  }
  from_ = to;
  tensor_.clear();
  expected_.clear();
}

void StudentWalk::Reach(const Node& node) {
  for (; !ends_[segment_].empty(); ++segment_) {
    const std::string& to = ends_[segment_];
    if (Place(node) <= Place(*teacher_.graph().FindValue(to)->producer())) break;
    Advance(to);
  }
}

const PairStatistics& StudentWalk::Inputs(const MatrixView& product) {
  const Rows rows = InputRows(product);
  // What a convolution's window sees is its own.
  const std::string key = rows.window ? product.output->name() : rows.tensor;
  if (key == tensor_) return inputs_;
  const RowPair pair{rows, rows};
  std::vector<PairStatistics> found =
      CollectPairs(Part(Side::kTeacher), Part(Side::kStudent), {&pair, 1}, teacher_feeds_.fit,
                   student_feeds_.fit, mask_, context_);
  inputs_ = std::move(found[0]);
  tensor_ = key;
  return inputs_;
}

std::optional<Drift> StudentWalk::DriftAfter(const MatrixView& product) {
  const std::string& to = ends_[segment_];
  const Value* sum = SumWith(product.output, to);
  if (sum == product.output) return std::nullopt;
  const Model theirs = Part(Side::kTeacher), ours = Part(Side::kStudent);
  // An addition may broadcast; then the rows are others.
  const std::vector<Tensor> sample = RunBatches(
      {theirs, {teacher_feeds_.fit.front()}, {product.output->name(), sum->name()}}, context_)[0];
  if (sample[0].dims() != sample[1].dims()) return std::nullopt;
  const RowPair pair{OutputRows(product, sum->name()), InputRows(product)};
  const auto cross = [&](const Model& model, const Batches& feeds) {
    return std::move(CollectPairs(model, ours, std::span(&pair, 1), feeds, student_feeds_.fit,
                                  mask_, context_)[0]);
  };
  const PairStatistics wanted = cross(theirs, teacher_feeds_.fit);
  const PairStatistics found = cross(ours, student_feeds_.fit);
  return Drift{wanted.cross - found.cross, wanted.teacher_mean - found.teacher_mean};
}

std::vector<OutputTarget> StudentWalk::Targets(const MatrixView& product) {
  const PairStatistics& pair = Inputs(product);
  const MatrixXd weight = Weight(product);
  const VectorXd bias = Bias(product);
  const auto blend = [&](double share) {
    return OutputTarget{
        (share * pair.cross + (1 - share) * pair.student_gram) * weight / pair.count,
        weight.transpose() * (share * pair.teacher_mean + (1 - share) * pair.student_mean) + bias};
  };
  std::vector<OutputTarget> targets = {blend(0)};
  if (pair.count < kRowsPerInput * static_cast<double>(product.inputs)) return targets;
  targets.push_back(blend(0.5));
  targets.push_back(blend(1));
  if (const std::optional<Drift> drift = DriftAfter(product)) {
    for (const double share : {0.5, 1.0}) {
      targets.push_back({targets[0].cross + share * drift->cross / pair.count,
                         targets[0].mean + share * drift->mean});
    }
  }
  return targets;
}

double StudentWalk::Error(const Model& candidate) {
  const Model theirs = Part(Side::kTeacher);
  std::vector<std::string> outputs;
  for (const Value* output : theirs.graph().outputs()) outputs.push_back(output->name());
  if (expected_.empty()) {
    expected_ = RunBatches({theirs, teacher_feeds_.select, outputs}, context_);
  }
  const Model ours = Segment(candidate, from_, ends_[segment_]);
  const auto found = RunBatches({ours, student_feeds_.select, outputs}, context_);
  double error = 0, energy = 0;
  for (size_t b = 0; b < expected_.size(); ++b) {
    for (size_t o = 0; o < outputs.size(); ++o) {
      if (!IsFloating(expected_[b][o].dtype())) continue;
      const std::vector<float> x = expected_[b][o].ToFloats(), y = found[b][o].ToFloats();
      for (size_t i = 0; i < x.size(); ++i) {
        error += static_cast<double>(x[i] - y[i]) * (x[i] - y[i]);
        energy += static_cast<double>(x[i]) * x[i];
      }
    }
  }
  return error / std::max(energy, 1e-300);
}

void StudentWalk::Accept(Model changed) {
  student_ = std::move(changed);
  changed_ = true;
}

std::optional<size_t> StudentWalk::TakeBest(const MatrixView& product,
                                            std::span<const Refit> solutions, bool may_stay) {
  std::optional<size_t> taken;
  if (solutions.empty()) return taken;
  Model best = student_.Clone();
  double least = may_stay ? Error(best) : std::numeric_limits<double>::infinity();
  for (size_t i = 0; i < solutions.size(); ++i) {
    Model candidate = student_.Clone();
    SetWeight(candidate, SameMatrix(candidate, product), solutions[i].weight, solutions[i].bias);
    const double error = Error(candidate);
    if ((taken || may_stay) && !(error < least)) continue;
    least = error;
    taken = i;
    best = std::move(candidate);
  }
  if (taken) Accept(std::move(best));
  return taken;
}

std::vector<Refit> SolveTargets(const MatrixView& product, const PairStatistics& pair,
                                std::span<const OutputTarget> targets, bool with_bias,
                                const SolveWeights& solve) {
  const VectorXd& mean = pair.student_mean;
  const VectorXd bias = Bias(product);
  MatrixXd h = pair.student_gram / pair.count;
  if (!with_bias) h += mean * mean.transpose();
  std::vector<MatrixXd> rights;
  for (const OutputTarget& target : targets) {
    rights.push_back(target.cross);
    if (!with_bias) rights.back() += mean * (target.mean - bias).transpose();
  }
  std::vector<MatrixXd> weights = solve(h, rights);
  std::vector<Refit> solutions;
  for (size_t i = 0; i < weights.size(); ++i) {
    VectorXd moved = with_bias ? targets[i].mean - weights[i].transpose() * mean : bias;
    solutions.push_back({std::move(weights[i]), std::move(moved)});
  }
  return solutions;
}

std::vector<Refit> SolveWhole(const MatrixView& product, const PairStatistics& pair,
                              std::span<const OutputTarget> targets, bool with_bias) {
  return SolveTargets(product, pair, targets, with_bias,
                      [&](const MatrixXd& h, std::span<const MatrixXd> rights) {
                        const MatrixXd weight = Weight(product);
                        const DampedCholesky cholesky = Decompose(h);
                        std::vector<MatrixXd> weights;
                        for (const MatrixXd& right : rights) {
                          weights.push_back(cholesky.Solve(right + cholesky.damping * weight));
                        }
                        return weights;
                      });
}

std::optional<MatrixView> ResolvableMatrix(const Node& node, const Context& context) {
  if (context.Excluded(node)) return std::nullopt;
  std::optional<MatrixView> matrix = AsMatrix(node);
  if (matrix && !matrix->weight->has_single_use()) matrix.reset();
  return matrix;
}

}  // namespace sparsefuse

#include "passes/statistics/student_walk.h"

#include <algorithm>
#include <utility>

#include "passes/statistics/cuts.h"

namespace sparsefuse {
namespace {

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
    : teacher_(model), student_(model.Clone()), context_(context), ends_(FindCuts(model)) {
  ends_.emplace_back();
  for (const Node* node : model.graph().TopologicalOrder()) order_.emplace(node, order_.size());
  const int64_t batch = ChooseBatch(teacher_, products, context_);
  const Dataset& data = *context_.calibration;
  teacher_feeds_ = {MakeBatches(data, context_.splits.fit, batch),
                    MakeBatches(data, context_.splits.select, batch)};
  mask_ = FindPaddingMask(teacher_, teacher_feeds_.fit);
  student_feeds_ = teacher_feeds_;
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
  const std::string& to = ends_[segment_];
  const RowPair pair{rows, rows};
  std::vector<PairStatistics> found =
      CollectPairs(Segment(teacher_, from_, to), Segment(student_, from_, to), std::span(&pair, 1),
                   teacher_feeds_.fit, student_feeds_.fit, mask_, context_);
  inputs_ = std::move(found[0]);
  tensor_ = key;
  return inputs_;
}

std::optional<Drift> StudentWalk::DriftAfter(const MatrixView& product) {
  const std::string& to = ends_[segment_];
  const Value* sum = SumWith(product.output, to);
  if (sum == product.output) return std::nullopt;
  const Model theirs = Segment(teacher_, from_, to), ours = Segment(student_, from_, to);
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

double StudentWalk::Error(const Model& candidate) {
  const std::string& to = ends_[segment_];
  const Model theirs = Segment(teacher_, from_, to);
  std::vector<std::string> outputs;
  for (const Value* output : theirs.graph().outputs()) outputs.push_back(output->name());
  if (expected_.empty()) {
    expected_ = RunBatches({theirs, teacher_feeds_.select, outputs}, context_);
  }
  const Model ours = Segment(candidate, from_, to);
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

}  // namespace sparsefuse

#include "passes/prune/resolve.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <optional>
#include <utility>

#include "passes/sensitivity/consumer_refit.h"
#include "passes/statistics/cuts.h"
#include "passes/statistics/dense.h"
#include "passes/statistics/gram.h"

namespace sparsefuse {
namespace {

using Eigen::Index;
using Eigen::MatrixXd;
using Eigen::VectorXd;

constexpr double kRowsPerInput = 4;

struct Item {
  const Choice* choice;
  size_t consumer;
};

// A model's feeds at the cut that has been reached.
struct Feeding {
  Batches fit, select;
};

Refit Solve(const Consumer& consumer, std::span<const int64_t> kept, const PairStatistics& pair,
            double teacher_share) {
  const MatrixXd weight = Weight(consumer.matrix);
  std::vector<Index> rows;
  for (size_t i = 0; i < consumer.unit_of.size(); ++i) {
    const int64_t unit = consumer.unit_of[i];
    const bool stays = unit < 0 || std::binary_search(kept.begin(), kept.end(), unit);
    if (stays) rows.push_back(static_cast<Index>(i));
  }
  Refit refit{MatrixXd::Zero(weight.rows(), weight.cols()), Bias(consumer.matrix)};
  const VectorXd mean = teacher_share * pair.teacher_mean + (1 - teacher_share) * pair.student_mean;
  refit.bias += weight.transpose() * mean;
  if (rows.empty()) return refit;
  const MatrixXd gram = pair.student_gram(rows, rows) / pair.count;
  const MatrixXd cross = (teacher_share * pair.cross(rows, Eigen::all) +
                          (1 - teacher_share) * pair.student_gram(rows, Eigen::all)) /
                         pair.count;
  const DampedCholesky cholesky = Decompose(gram);
  refit.weight(rows, Eigen::all) =
      cholesky.Solve(cross * weight + cholesky.damping * weight(rows, Eigen::all));
  refit.bias -= refit.weight.transpose() * pair.student_mean;
  return refit;
}

class Sequence {
 public:
  Sequence(const Model& model, const Context& context)
      : teacher_(model), student_(model.Clone()), context_(context) {}

  Model Run(std::vector<Item> items);

 private:
  void Start(const std::vector<Item>& items);
  void Advance(std::string_view from, const std::string& to);
  void Repair(const Item& item, std::string_view from, std::string_view to);
  double Error(const Model& student, std::string_view from, std::string_view to) const;

  const Model& teacher_;
  Model student_;
  const Context& context_;
  std::optional<std::string> mask_;
  Feeding teacher_feeds_, student_feeds_;
  bool changed_ = false;
};

void Sequence::Start(const std::vector<Item>& items) {
  std::vector<MatrixView> views;
  for (const Item& item : items) {
    views.push_back(item.choice->prunable->consumers[item.consumer].matrix);
  }
  const int64_t batch = ChooseBatch(teacher_, views, context_);
  const Dataset& data = *context_.calibration;
  teacher_feeds_ = {MakeBatches(data, context_.splits.fit, batch),
                    MakeBatches(data, context_.splits.select, batch)};
  mask_ = FindPaddingMask(teacher_, teacher_feeds_.fit);
  student_feeds_ = teacher_feeds_;
}

// To the next cut: its tensor takes the last one's place among the feeds.
void Sequence::Advance(std::string_view from, const std::string& to) {
  const auto step = [&](const Model& model, Batches& batches) {
    const Model segment = Segment(model, from, to);
    std::vector<std::vector<Tensor>> results = RunBatches({segment, batches, {to}}, context_);
    for (size_t b = 0; b < batches.size(); ++b) {
      std::erase_if(batches[b], [&](const auto& feed) { return feed.first == from; });
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
}

// Mean square of what the segment's outputs differ by on the select split, over their mean square.
double Sequence::Error(const Model& student, std::string_view from, std::string_view to) const {
  const Model ours = Segment(student, from, to), theirs = Segment(teacher_, from, to);
  std::vector<std::string> outputs;
  for (const Value* output : theirs.graph().outputs()) outputs.push_back(output->name());
  const auto expected = RunBatches({theirs, teacher_feeds_.select, outputs}, context_);
  const auto found = RunBatches({ours, student_feeds_.select, outputs}, context_);
  double error = 0, energy = 0;
  for (size_t b = 0; b < expected.size(); ++b) {
    for (size_t o = 0; o < outputs.size(); ++o) {
      if (!IsFloating(expected[b][o].dtype())) continue;
      const std::vector<float> x = expected[b][o].ToFloats(), y = found[b][o].ToFloats();
      for (size_t i = 0; i < x.size(); ++i) {
        error += static_cast<double>(x[i] - y[i]) * (x[i] - y[i]);
        energy += static_cast<double>(x[i]) * x[i];
      }
    }
  }
  return error / std::max(energy, 1e-300);
}

void Sequence::Repair(const Item& item, std::string_view from, std::string_view to) {
  const Prunable& prunable = *item.choice->prunable;
  const Consumer& consumer = prunable.consumers[item.consumer];
  const Rows rows = InputRows(consumer.matrix);
  const RowPair pair{rows, rows};
  const PairStatistics statistics =
      CollectPairs(Segment(teacher_, from, to), Segment(student_, from, to), std::span(&pair, 1),
                   teacher_feeds_.fit, student_feeds_.fit, mask_, context_)[0];
  double least = std::numeric_limits<double>::infinity();
  std::vector<double> shares = {1, 0.5, 0};
  if (statistics.count < kRowsPerInput * static_cast<double>(consumer.matrix.inputs)) shares = {0};
  Model best = student_.Clone();
  for (const double share : shares) {
    Model candidate = student_.Clone();
    SetRefit(candidate, prunable, item.consumer,
             Solve(consumer, item.choice->kept, statistics, share));
    const double error = Error(candidate, from, to);
    if (!(error < least)) continue;
    least = error;
    best = std::move(candidate);
  }
  student_ = std::move(best);
  changed_ = true;
}

Model Sequence::Run(std::vector<Item> items) {
  if (items.empty()) return std::move(student_);
  std::map<const Node*, size_t> order;
  for (const Node* node : teacher_.graph().TopologicalOrder()) order.emplace(node, order.size());
  const auto place = [&](const Item& item) {
    return order.at(item.choice->prunable->consumers[item.consumer].matrix.node);
  };
  std::stable_sort(items.begin(), items.end(),
                   [&](const Item& a, const Item& b) { return place(a) < place(b); });
  Start(items);
  std::vector<std::string> ends = FindCuts(teacher_);
  ends.push_back("");
  std::string from;
  size_t next = 0;
  for (const std::string& to : ends) {
    const Value* end = to.empty() ? nullptr : teacher_.graph().FindValue(to);
    const size_t last = end ? order.at(end->producer()) : order.size();
    while (next < items.size() && place(items[next]) <= last) {
      Repair(items[next++], from, to);
      context_.progress("repair", static_cast<int64_t>(next), static_cast<int64_t>(items.size()));
    }
    if (next == items.size() || to.empty()) break;
    Advance(from, to);
    from = to;
  }
  return std::move(student_);
}

}  // namespace

Model RepairSurvivors(Evidence& evidence, std::span<const Choice> choices, Repair repair) {
  const Model& model = evidence.model();
  std::vector<Item> items;
  for (const Choice& choice : choices) {
    for (size_t c = 0; c < choice.prunable->consumers.size(); ++c) items.push_back({&choice, c});
  }
  if (repair == Repair::kSequence) return Sequence(model, evidence.context()).Run(std::move(items));
  Model student = model.Clone();
  for (const Choice& choice : choices) {
    std::optional<ObsModule> obs;
    if (repair == Repair::kRefit) obs = CollectObs(evidence, *choice.prunable);
    for (size_t c = 0; c < choice.prunable->consumers.size(); ++c) {
      SetRefit(student, *choice.prunable, c,
               obs ? RefitConsumer(*choice.prunable, *obs, c, choice.kept)
                   : ZeroConsumer(*choice.prunable, c, choice.kept));
    }
  }
  return student;
}

}  // namespace sparsefuse

#include "passes/prune/resolve.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <utility>

#include "passes/sensitivity/consumer_refit.h"
#include "passes/statistics/dense.h"
#include "passes/statistics/student_walk.h"

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

void SolveOne(StudentWalk& walk, const Item& item) {
  const Prunable& prunable = *item.choice->prunable;
  const Consumer& consumer = prunable.consumers[item.consumer];
  walk.Reach(*consumer.matrix.node);
  const PairStatistics& statistics = walk.Inputs(consumer.matrix);
  double least = std::numeric_limits<double>::infinity();
  std::vector<double> shares = {1, 0.5, 0};
  if (statistics.count < kRowsPerInput * static_cast<double>(consumer.matrix.inputs)) shares = {0};
  Model best = walk.student().Clone();
  for (const double share : shares) {
    Model candidate = walk.student().Clone();
    SetRefit(candidate, prunable, item.consumer,
             Solve(consumer, item.choice->kept, statistics, share));
    const double error = walk.Error(candidate);
    if (!(error < least)) continue;
    least = error;
    best = std::move(candidate);
  }
  walk.Accept(std::move(best));
}

Model SolveInSequence(const Model& model, std::vector<Item> items, const Context& context) {
  if (items.empty()) return model.Clone();
  std::vector<MatrixView> views;
  for (const Item& item : items) {
    views.push_back(item.choice->prunable->consumers[item.consumer].matrix);
  }
  StudentWalk walk(model, views, context);
  const auto place = [&](const Item& item) {
    return walk.Place(*item.choice->prunable->consumers[item.consumer].matrix.node);
  };
  std::stable_sort(items.begin(), items.end(),
                   [&](const Item& a, const Item& b) { return place(a) < place(b); });
  for (size_t i = 0; i < items.size(); ++i) {
    SolveOne(walk, items[i]);
    context.progress("repair", static_cast<int64_t>(i + 1), static_cast<int64_t>(items.size()));
  }
  return walk.Finish();
}

}  // namespace

Model RepairSurvivors(Evidence& evidence, std::span<const Choice> choices, Repair repair) {
  const Model& model = evidence.model();
  std::vector<Item> items;
  for (const Choice& choice : choices) {
    for (size_t c = 0; c < choice.prunable->consumers.size(); ++c) items.push_back({&choice, c});
  }
  if (repair == Repair::kSequence) {
    return SolveInSequence(model, std::move(items), evidence.context());
  }
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

std::vector<const Prunable*> PreferLastBiases(Evidence& evidence, std::span<const Choice> choices,
                                              Model& student) {
  std::vector<const Prunable*> preferred;
  std::optional<double> least;
  for (const Choice& choice : choices) {
    if (!choice.kept.empty()) continue;
    if (!least) least = evidence.kl().Of(student);
    Model candidate = student.Clone();
    for (size_t c = 0; c < choice.prunable->consumers.size(); ++c) {
      SetRefit(candidate, *choice.prunable, c, ZeroConsumer(*choice.prunable, c, choice.kept));
    }
    const double kl = evidence.kl().Of(candidate);
    if (!(kl < *least)) continue;
    least = kl;
    student = std::move(candidate);
    preferred.push_back(choice.prunable);
  }
  return preferred;
}

}  // namespace sparsefuse

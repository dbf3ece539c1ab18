#include "passes/prune/resolve.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>
#include <optional>
#include <utility>

#include "passes/sensitivity/consumer_refit.h"
#include "passes/statistics/dense.h"
#include "passes/statistics/student_walk.h"
#include "passes/statistics/zeros.h"

namespace sparsefuse {
namespace {

using Eigen::Index;
using Eigen::MatrixXd;
using Eigen::VectorXd;

// A product to solve anew.
struct Item {
  MatrixView matrix;
  std::vector<Index> rows;  // of W, that stay
};

std::vector<Index> RowsThatStay(const Consumer& consumer, std::span<const int64_t> kept) {
  std::vector<Index> rows;
  for (size_t i = 0; i < consumer.unit_of.size(); ++i) {
    const int64_t unit = consumer.unit_of[i];
    const bool stays = unit < 0 || std::binary_search(kept.begin(), kept.end(), unit);
    if (stays) rows.push_back(static_cast<Index>(i));
  }
  return rows;
}

bool IsWhole(const Item& item) {
  return static_cast<int64_t>(item.rows.size()) == item.matrix.inputs;
}

std::vector<Refit> Solve(const Item& item, const PairStatistics& pair,
                         std::span<const OutputTarget> targets) {
  if (IsWhole(item)) return SolveWhole(item.matrix, pair, targets, item.matrix.bias != nullptr);
  return SolveTargets(
      item.matrix, pair, targets, true, [&](const MatrixXd& h, std::span<const MatrixXd> rights) {
        const std::vector<Index>& rows = item.rows;
        const MatrixXd weight = Weight(item.matrix);
        std::vector<MatrixXd> weights(rights.size(), MatrixXd::Zero(weight.rows(), weight.cols()));
        if (rows.empty()) return weights;
        const DampedCholesky cholesky = Decompose(h(rows, rows));
        for (size_t i = 0; i < rights.size(); ++i) {
          weights[i](rows, Eigen::all) = cholesky.Solve(
              rights[i](rows, Eigen::all) + cholesky.damping * weight(rows, Eigen::all));
        }
        return weights;
      });
}

void SolveOne(StudentWalk& walk, const Item& item) {
  walk.Reach(*item.matrix.node);
  const std::vector<OutputTarget> targets = walk.Targets(item.matrix);
  // As it is, a product that keeps its inputs meets the first target.
  const auto wanted = std::span(targets).subspan(IsWhole(item) ? 1 : 0);
  walk.TakeBest(item.matrix, Solve(item, walk.Inputs(item.matrix), wanted), IsWhole(item));
}

// The consumers of what goes, and every product after the first of them whose weight is its own and
// holds no zero blocks, which a solution would fill.
std::vector<Item> ItemsInSequence(const Model& model, std::span<const Choice> choices,
                                  const Context& context) {
  std::map<const Node*, Item> consumers;
  for (const Choice& choice : choices) {
    for (const Consumer& consumer : choice.prunable->consumers) {
      consumers[consumer.matrix.node] = {consumer.matrix, RowsThatStay(consumer, choice.kept)};
    }
  }
  std::vector<Item> items;
  for (const Node* node : model.graph().TopologicalOrder()) {
    const auto found = consumers.find(node);
    if (found != consumers.end()) {
      items.push_back(found->second);
    } else if (!items.empty()) {
      const std::optional<MatrixView> matrix = ResolvableMatrix(*node, context);
      if (!matrix || ExistingZeros(Weight(*matrix), Pattern::kBlock).any()) continue;
      Item item{*matrix, std::vector<Index>(static_cast<size_t>(matrix->inputs))};
      std::iota(item.rows.begin(), item.rows.end(), 0);
      items.push_back(std::move(item));
    }
  }
  return items;
}

Model SolveInSequence(const Model& model, std::span<const Choice> choices, const Context& context) {
  const std::vector<Item> items = ItemsInSequence(model, choices, context);
  if (items.empty()) return model.Clone();
  std::vector<MatrixView> views;
  for (const Item& item : items) views.push_back(item.matrix);
  StudentWalk walk(model, views, context);
  for (size_t i = 0; i < items.size(); ++i) {
    SolveOne(walk, items[i]);
    context.progress("repair", static_cast<int64_t>(i + 1), static_cast<int64_t>(items.size()));
  }
  return walk.Finish();
}

}  // namespace

Model RepairSurvivors(Evidence& evidence, std::span<const Choice> choices, Repair repair) {
  const Model& model = evidence.model();
  if (repair == Repair::kSequence) return SolveInSequence(model, choices, evidence.context());
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

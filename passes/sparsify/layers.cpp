#include "passes/sparsify/layers.h"

#include <fmt/format.h>
#include <fnmatch.h>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <optional>
#include <unordered_set>
#include <utility>

#include "passes/prune/knapsack.h"
#include "passes/sparsify/apply.h"
#include "passes/statistics/gram.h"

namespace sparsefuse {
namespace {

using Eigen::Index;
using Eigen::VectorXd;

constexpr int kShareSteps = 8;
constexpr double kMostApart = 0.125;

bool IsWeighted(const Node& node) {
  if (AsMatrix(node)) return true;
  const bool table = node.Is("Gather") || node.Is("Conv") || node.Is("ConvTranspose");
  const Tensor* weight = table ? node.constant_input(node.Is("Gather") ? 0 : 1) : nullptr;
  return weight && IsFloating(weight->dtype()) && weight->rank() >= 2;
}

// Layers with no weights before them, and with none after them: they see raw data, or make answers.
struct Ends {
  std::unordered_set<const Node*> first, last;
};

Ends FindEnds(const Model& model) {
  Ends ends;
  const std::vector<Node*> order = model.graph().TopologicalOrder();
  std::unordered_set<const Value*> after, before;  // weights
  const auto in = [](const std::unordered_set<const Value*>& set, const std::vector<Value*>& of) {
    return std::any_of(of.begin(), of.end(), [&](const Value* v) { return set.count(v) > 0; });
  };
  for (const Node* node : order) {
    const bool behind = in(after, node->inputs()), weighted = IsWeighted(*node);
    if (weighted && !behind) ends.first.insert(node);
    if (weighted || behind) after.insert(node->outputs().begin(), node->outputs().end());
  }
  for (size_t i = order.size(); i-- > 0;) {
    const Node* node = order[i];
    const bool ahead = in(before, node->outputs()), weighted = IsWeighted(*node);
    if (weighted && !ahead) ends.last.insert(node);
    if (weighted || ahead) before.insert(node->inputs().begin(), node->inputs().end());
  }
  return ends;
}

// Empty, or why a layer that could take zeros does not.
std::string ReasonAgainst(const MatrixView& matrix, const Ends& ends, const Context& context) {
  if (context.Excluded(*matrix.node)) return "excluded by the configuration";
  if (ends.first.count(matrix.node)) return "the first layer; name it in \"of\" to include it";
  if (ends.last.count(matrix.node)) return "the last layer; name it in \"of\" to include it";
  if (matrix.node->Is("Conv")) return "a convolution; name it in \"of\" to include it";
  return "";
}

std::string ReasonInWeight(const MatrixView& matrix) {
  const auto& uses = matrix.weight->uses();
  for (const Use& use : uses) {
    if (use.node == matrix.node || matrix.node->input(1) != matrix.weight) continue;
    return fmt::format("its weight is shared with {}", use.node->Describe());
  }
  if (uses.size() > 1) return "its weight has other readers";
  if (!Weight(matrix).allFinite()) return "its weight holds NaN or infinity";
  return "";
}

void FindImportance(const Curvature& curvature, SparseLayer& layer) {
  const std::string& output = layer.matrix.output->name();
  const auto reason = curvature.unreachable.find(output);
  if (reason != curvature.unreachable.end()) {
    layer.reason = reason->second;
    return;
  }
  layer.importance = Importance(curvature.outputs.at(output)) * (0.5 / curvature.answers);
}

// Predictions, scaled by what the share asked for really costs.
void FindLosses(Evidence& evidence, SparseLayer& layer, const SparsifySettings& settings) {
  const LayerProblem problem = ProblemOf(layer, evidence.Input(layer.matrix), settings.method);
  double least = 1e-12;  // more zeros never cost less
  for (const double share : LossShares(settings.sparsity)) {
    const Refit solution = problem.Solve(share, settings);
    least = std::max(least, problem.Loss(solution));
    layer.losses.push_back(least);
    if (share != settings.sparsity) continue;
    Model student = evidence.model().Clone();
    SetWeight(student, SameMatrix(student, layer.matrix), solution.weight, solution.bias);
    layer.correction = std::max(evidence.kl().Of(student), 1e-12) / least;
  }
}

}  // namespace

std::array<double, 3> LossShares(double sparsity) {
  const double apart = std::min({kMostApart, sparsity / 2, (1 - sparsity) / 2});
  return {sparsity - apart, sparsity, sparsity + apart};
}

double PredictedLoss(const SparseLayer& layer, double share, double sparsity) {
  const std::array<double, 3> shares = LossShares(sparsity);
  const size_t below = share < sparsity ? 0 : 1;
  const double place = (share - shares[below]) / (shares[below + 1] - shares[below]);
  // Straight in the logarithm.
  return layer.correction * layer.losses[below] *
         std::pow(layer.losses[below + 1] / layer.losses[below], place);
}

std::vector<SparseLayer> FindSparseLayers(const Model& model, const SparsifySettings& settings,
                                          const Context& context) {
  const Ends ends = FindEnds(model);
  std::vector<bool> used(settings.of.size());
  std::vector<SparseLayer> layers;
  for (const Node* node : model.graph().TopologicalOrder()) {
    const std::optional<MatrixView> matrix = AsMatrix(*node);
    if (!matrix) continue;
    SparseLayer layer{.matrix = *matrix};
    bool named = false;
    for (size_t i = 0; i < settings.of.size(); ++i) {
      if (fnmatch(settings.of[i].c_str(), node->name().c_str(), 0) != 0) continue;
      named = used[i] = true;
    }
    if (!settings.of.empty() && !named) layer.reason = "not among the layers of \"of\"";
    if (settings.of.empty()) layer.reason = ReasonAgainst(*matrix, ends, context);
    if (named && context.Excluded(*node)) layer.reason = "excluded by the configuration";
    if (layer.reason.empty()) layer.reason = ReasonInWeight(*matrix);
    const Eigen::MatrixXd weight = Weight(*matrix);
    layer.existing = ExistingZeros(weight, settings.pattern.pattern);
    layer.existing_blocks = ZeroShare(ExistingZeros(weight, Pattern::kBlock));
    layer.importance = VectorXd::Ones(matrix->outputs);
    layers.push_back(std::move(layer));
  }
  for (size_t i = 0; i < used.size(); ++i) {
    if (used[i]) continue;
    throw UserError(
        ErrorCode::kConfig,
        fmt::format("\"{}\" matches no product with a constant matrix", Printable(settings.of[i])),
        "* and ? as in file names; `sparsefuse inspect` lists nodes")
        .At("of");
  }
  return layers;
}

void MeasureLayers(Evidence& evidence, std::vector<SparseLayer>& layers,
                   const SparsifySettings& settings) {
  int64_t done = 0;
  for (SparseLayer& layer : layers) {
    evidence.context().progress("losses", done++, std::ssize(layers));
    if (layer.reason.empty() && settings.by_loss) FindImportance(evidence.curvature(), layer);
    if (!layer.reason.empty()) continue;
    const double count = evidence.Input(layer.matrix).count;
    if (count < kRowsPerInput * static_cast<double>(layer.matrix.inputs)) {
      layer.reason = fmt::format("{} rows of data for {} inputs; 4 times as many are needed",
                                 static_cast<int64_t>(count), layer.matrix.inputs);
    } else if (settings.by_loss) {
      FindLosses(evidence, layer, settings);
    }
  }
  evidence.context().progress("losses", done, std::ssize(layers));
}

std::vector<double> DistributeShares(std::span<const SparseLayer> layers,
                                     const SparsifySettings& settings, bool by_loss) {
  std::vector<double> shares(layers.size());
  std::vector<size_t> open;
  double all = 0;
  for (size_t i = 0; i < layers.size(); ++i) {
    if (!layers[i].reason.empty()) continue;
    open.push_back(i);
    all += static_cast<double>(layers[i].existing.size());
    shares[i] = settings.sparsity;
  }
  if (by_loss) {
    const std::array<double, 3> range = LossShares(settings.sparsity);
    std::vector<double> steps;
    for (int step = 0; step <= kShareSteps; ++step) {
      steps.push_back(range[0] + (range[2] - range[0]) * step / kShareSteps);
    }
    std::vector<std::vector<KnapsackOption>> menu;
    for (const size_t i : open) {
      menu.emplace_back();
      for (const double share : steps) {
        menu.back().push_back({PredictedLoss(layers[i], share, settings.sparsity),
                               share * static_cast<double>(layers[i].existing.size())});
      }
    }
    const auto chosen = ChooseOptions(menu, settings.sparsity * all);
    SF_CHECK(chosen, "the largest shares do not reach their mean");
    for (size_t i = 0; i < open.size(); ++i) shares[open[i]] = steps[(*chosen)[i]];
  }
  for (const size_t i : open) {
    if (ZeroShare(layers[i].existing) >= shares[i]) shares[i] = 0;
  }
  return shares;
}

}  // namespace sparsefuse

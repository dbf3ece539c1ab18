#include "passes/sensitivity/curvature.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <set>
#include <utility>

#include "passes/sensitivity/answer_output.h"
#include "passes/sensitivity/fisher.h"

namespace sparsefuse {
namespace {

using Eigen::Index;
using Eigen::MatrixXd;

constexpr int64_t kDraws = 2;

// The tensors whose positions are the module's units, each once, with a consumer that reads it.
std::vector<const Consumer*> Inputs(const Prunable& module) {
  std::vector<const Consumer*> inputs;
  std::set<const Value*> seen;  // consumers of one tensor share its gradient
  for (const Consumer& consumer : module.consumers) {
    if (seen.insert(consumer.matrix.input).second) inputs.push_back(&consumer);
  }
  return inputs;
}

// Asks for what gradients reach, and notes what they do not.
FisherRequest Request(const Model& model, const std::string& output,
                      std::span<const Prunable> modules, std::span<const MatrixView> matrices,
                      Curvature& curvature) {
  std::vector<std::string> tensors;
  for (const MatrixView& matrix : matrices) tensors.push_back(matrix.output->name());
  for (const Prunable& module : modules) {
    for (const Consumer* input : Inputs(module)) tensors.push_back(input->matrix.input->name());
  }
  const std::vector<std::string> reasons = Unreachable(model, output, tensors);
  for (size_t i = 0; i < tensors.size(); ++i) {
    if (!reasons[i].empty()) curvature.unreachable.emplace(tensors[i], reasons[i]);
  }
  FisherRequest request;
  for (const MatrixView& matrix : matrices) {
    if (curvature.unreachable.contains(matrix.output->name())) continue;
    request.columns.push_back({matrix.output->name(), matrix.node->Is("Conv"), matrix.outputs});
  }
  for (const Prunable& module : modules) {
    for (const Consumer* input : Inputs(module)) {
      if (curvature.unreachable.contains(input->matrix.input->name())) continue;
      request.masks.push_back({input->matrix.input->name(), input->image,
                               static_cast<int64_t>(input->unit_of_position.size())});
    }
  }
  return request;
}

std::string Describe(const FisherRequest& request, size_t samples, uint64_t seed) {
  std::string text =
      fmt::format("gradients 4: {} samples, {} draws, seed {}", samples, kDraws, seed);
  for (const Tap& tap : request.masks) text += fmt::format("\nmask {}", tap.tensor);
  for (const Tap& tap : request.columns) text += fmt::format("\ncolumns {}", tap.tensor);
  return text;
}

Fisher SweepOnce(const Model& model, const FisherRequest& request, std::span<const int64_t> samples,
                 StatisticsStore& store, const Context& context) {
  const std::string what = Describe(request, samples.size(), context.seed);
  const size_t masks = request.masks.size(), columns = request.columns.size();
  Fisher fisher;
  if (std::optional<Matrices> kept = store.Find(what);
      kept && kept->size() == 1 + masks + 2 * columns) {
    fisher.answers = kept->front()(0, 0);
    fisher.samples = static_cast<int64_t>(kept->front()(0, 1));
    for (size_t i = 0; i < masks; ++i) fisher.masks.push_back(std::move((*kept)[1 + i]));
    for (size_t i = 0; i < columns; ++i) {
      fisher.columns.emplace_back((*kept)[1 + masks + i].col(0));
      fisher.column_grams.push_back(std::move((*kept)[1 + masks + columns + i]));
    }
    return fisher;
  }
  fisher = CollectFisher(model, request, context, samples, kDraws);
  Matrices all = {MatrixXd(1, 2)};
  all[0] << fisher.answers, static_cast<double>(fisher.samples);
  all.insert(all.end(), fisher.masks.begin(), fisher.masks.end());
  all.insert(all.end(), fisher.columns.begin(), fisher.columns.end());
  // The largest are lent, not copied.
  for (MatrixXd& gram : fisher.column_grams) all.push_back(std::move(gram));
  store.Keep(what, all);
  std::move(all.end() - static_cast<Index>(columns), all.end(), fisher.column_grams.begin());
  return fisher;
}

}  // namespace

std::vector<MatrixView> FindMatrices(const Model& model) {
  std::vector<MatrixView> matrices;
  for (const Node* node : model.graph().TopologicalOrder()) {
    if (std::optional<MatrixView> view = AsMatrix(*node)) matrices.push_back(*view);
  }
  return matrices;
}

Eigen::VectorXd Importance(const Curvature::Output& output) {
  const double least = 1e-6 * std::max(output.columns.mean(), 1e-30);
  return output.columns.array() + least;
}

Curvature FindCurvature(const Model& model, std::span<const Prunable> modules,
                        std::span<const MatrixView> matrices, int64_t samples,
                        StatisticsStore& store, const Context& context) {
  Curvature curvature;
  curvature.units.resize(modules.size());
  const std::string output = FindAnswerOutput(model, context, context.splits.fit).name;
  const FisherRequest request = Request(model, output, modules, matrices, curvature);
  if (request.masks.empty() && request.columns.empty()) return curvature;
  std::vector<int64_t> swept = context.splits.fit;
  if (static_cast<int64_t>(swept.size()) > samples) swept.resize(static_cast<size_t>(samples));
  Fisher fisher = SweepOnce(model, request, swept, store, context);
  curvature.answers = fisher.answers;
  for (size_t i = 0; i < request.columns.size(); ++i) {
    curvature.outputs.emplace(
        request.columns[i].tensor,
        Curvature::Output{std::move(fisher.columns[i]), std::move(fisher.column_grams[i])});
  }
  size_t tap = 0;
  for (size_t m = 0; m < modules.size(); ++m) {
    MatrixXd& units = curvature.units[m];
    for (const Consumer* input : Inputs(modules[m])) {
      if (curvature.unreachable.contains(input->matrix.input->name())) continue;
      if (units.size() == 0) units = MatrixXd::Zero(fisher.samples, modules[m].module->units);
      const MatrixXd& positions = fisher.masks[tap++];
      for (size_t i = 0; i < input->unit_of_position.size(); ++i) {
        const int64_t unit = input->unit_of_position[i];
        if (unit >= 0) units.col(unit) += positions.col(static_cast<Index>(i));
      }
    }
  }
  return curvature;
}

}  // namespace sparsefuse

#include "passes/sensitivity/evidence.h"

#include <spdlog/spdlog.h>

#include <algorithm>

namespace sparsefuse {
namespace {

constexpr int64_t kGradientSamples = 128;  // of the fit split, at most
constexpr double kGroupBytes = 128.0 * (1 << 20);

Batches FitBatches(const Model& model, std::span<const MatrixView> matrices,
                   const Context& context) {
  return MakeBatches(*context.calibration, context.splits.fit,
                     ChooseBatch(model, matrices, context));
}

// Everything that evidence hangs on: the fit split for moments and gradients, select for KL.
Batches AllBatches(Batches fit, const Context& context) {
  Batches all = std::move(fit);
  for (Feeds& feeds : MakeBatches(*context.calibration, context.splits.select, 1)) {
    all.push_back(std::move(feeds));
  }
  return all;
}

bool SameRows(const Rows& a, const Rows& b) {
  if (a.tensor != b.tensor || a.feature_axis != b.feature_axis || !a.window != !b.window) {
    return false;
  }
  // Two windows on one image see the same only where their attributes agree: not worth looking.
  return a.window == b.window;
}

}  // namespace

Evidence::Evidence(const Model& model, std::span<const Prunable> modules, const Context& context)
    : model_(model),
      context_(context),
      modules_(modules),
      matrices_(FindMatrices(model)),
      fit_(FitBatches(model, matrices_, context)),
      mask_(FindPaddingMask(model, fit_)),
      store_(model, AllBatches(fit_, context), context) {
  for (const MatrixView& view : matrices_) {
    const Rows rows = InputRows(view);
    const bool known = std::any_of(groups_.begin(), groups_.end(), [&](const InputGroup& group) {
      return std::any_of(group.rows.begin(), group.rows.end(),
                         [&](const Rows& r) { return SameRows(r, rows); });
    });
    if (known) continue;
    const double bytes = GramBytes(view);
    if (groups_.empty() || groups_.back().bytes + bytes > kGroupBytes) groups_.emplace_back();
    groups_.back().rows.push_back(rows);
    groups_.back().bytes += bytes;
  }
}

Evidence::Metric Evidence::MetricOf(const MatrixView& view) {
  const RowStatistics& rows = Input(view);
  Eigen::MatrixXd gram = rows.gram / std::max(rows.count, 1.0);
  const auto found = curvature().outputs.find(view.output->name());
  if (found == curvature().outputs.end()) {
    return {std::move(gram), Eigen::VectorXd(Eigen::VectorXd::Ones(view.outputs))};
  }
  const Eigen::MatrixXd& products = found->second.gram;
  if (products.size() > 0) return {std::move(gram), OutputMetric(products)};
  return {std::move(gram), Importance(found->second)};
}

double Evidence::GramBytes(const MatrixView& view) {
  return 8.0 * static_cast<double>(view.inputs) * static_cast<double>(view.inputs);
}

const Curvature& Evidence::curvature() {
  if (!curvature_) {
    curvature_ = FindCurvature(model_, modules_, matrices_, kGradientSamples, store_, context_);
  }
  return *curvature_;
}

const SelectKl& Evidence::kl() {
  if (!kl_) kl_ = std::make_unique<SelectKl>(model_, context_);
  return *kl_;
}

const RowStatistics& Evidence::Input(const MatrixView& view) {
  const Rows rows = InputRows(view);
  for (size_t g = 0; g < groups_.size(); ++g) {
    const std::vector<Rows>& own = groups_[g].rows;
    for (size_t i = 0; i < own.size(); ++i) {
      if (!SameRows(own[i], rows)) continue;
      if (collected_ != g) Collect(g);
      return statistics_[i];
    }
  }
  throw InternalError("a matrix of another model");
}

void Evidence::Collect(size_t group) {
  statistics_.clear();  // before the next ones need their room
  collected_.reset();
  std::vector<RowRequest> requests;
  for (const Rows& rows : groups_[group].rows) requests.push_back({rows, true});
  context_.progress("moments of inputs", static_cast<int64_t>(group),
                    static_cast<int64_t>(groups_.size()));
  statistics_ = store_.Rows("inputs", model_, requests, fit_, mask_, context_);
  collected_ = group;
  context_.progress("moments of inputs", static_cast<int64_t>(group) + 1,
                    static_cast<int64_t>(groups_.size()));
}

}  // namespace sparsefuse

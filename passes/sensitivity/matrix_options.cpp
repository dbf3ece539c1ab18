#include "passes/sensitivity/matrix_options.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <optional>
#include <utility>

#include "passes/framework/parallel.h"
#include "passes/sensitivity/coarsening.h"
#include "passes/sensitivity/group_obs.h"
#include "passes/statistics/gram.h"

namespace sparsefuse {
namespace {

using Eigen::Index;
using Eigen::MatrixXd;
using Eigen::VectorXd;

constexpr std::array<int64_t, 6> kBits = {8, 6, 5, 4, 3, 2};
constexpr std::array<double, 3> kRankShares = {0.75, 0.5, 0.25};

struct Job {
  MatrixOptions* options;
  ObsConsumer matrix;  // no units
  VectorXd mean;
};

bool IsMeasured(const MatrixOption& option, Index smaller) {
  return option.kind == MatrixOption::Kind::kBits ? option.value == 4 || option.value == 3
                                                  : option.value == smaller / 2;
}

Index Smaller(const MatrixXd& weight) { return std::min(weight.rows(), weight.cols()); }

// Predictions, and the changed weights of the options that are to be measured.
std::vector<std::pair<size_t, MatrixXd>> Predict(Job& job, double answers) {
  const MatrixXd& weight = job.matrix.weight;
  const double energy = ObsError(job.matrix, MatrixXd::Zero(weight.rows(), weight.cols()));
  std::vector<std::pair<size_t, MatrixXd>> measured;
  std::vector<MatrixOption>& options = job.options->options;
  const auto add = [&](MatrixOption::Kind kind, int64_t value, MatrixXd changed) {
    const double error = ObsError(job.matrix, changed);
    options.push_back({kind, value, energy > 0 ? error / energy : 0, 0.5 * error / answers});
    if (IsMeasured(options.back(), Smaller(weight))) {
      measured.emplace_back(options.size() - 1, std::move(changed));
    }
  };
  for (const int64_t bits : kBits) add(MatrixOption::Kind::kBits, bits, RoundToBits(weight, bits));
  if (!job.options->reason.empty()) return measured;
  const RankCurve curve(weight, job.matrix.gram, job.matrix.metric);
  for (const double share : kRankShares) {
    const auto rank = static_cast<int64_t>(share * static_cast<double>(Smaller(weight)));
    if (rank > 0) add(MatrixOption::Kind::kRank, rank, curve.Truncated(rank));
  }
  return measured;
}

double Correction(const std::vector<MatrixOption>& options, MatrixOption::Kind kind) {
  double sum = 0, count = 0;
  for (const MatrixOption& option : options) {
    if (option.kind != kind || option.measured < 0) continue;
    sum += std::log(std::max(option.measured, 1e-12) / std::max(option.predicted, 1e-12));
    ++count;
  }
  return count > 0 ? std::exp(sum / count) : 1;
}

// --- kept on disk --------------------------------------------------------------------------------

std::string StoredName(const MatrixOptions& options, uint64_t seed) {
  return fmt::format("matrix options 4: {} seed {}", options.matrix->output->name(), seed);
}

bool Restore(StatisticsStore& store, uint64_t seed, MatrixOptions& options) {
  const std::optional<Matrices> kept = store.Find(StoredName(options, seed));
  if (!kept || kept->size() != 1 || (*kept)[0].cols() != 5) return false;
  const MatrixXd& table = (*kept)[0];
  for (Index i = 0; i < table.rows(); ++i) {
    options.options.push_back(
        {table(i, 0) != 0 ? MatrixOption::Kind::kRank : MatrixOption::Kind::kBits,
         static_cast<int64_t>(table(i, 1)), table(i, 2), table(i, 3), table(i, 4)});
  }
  return true;
}

void Save(StatisticsStore& store, uint64_t seed, const MatrixOptions& options) {
  MatrixXd table(static_cast<Index>(options.options.size()), 5);
  for (Index i = 0; i < table.rows(); ++i) {
    const MatrixOption& o = options.options[static_cast<size_t>(i)];
    table.row(i) << (o.kind == MatrixOption::Kind::kRank ? 1.0 : 0.0), static_cast<double>(o.value),
        o.error, o.predicted, o.measured;
  }
  store.Keep(StoredName(options, seed), {table});
}

void RunJobs(Evidence& evidence, std::vector<Job>& jobs) {
  const double answers = evidence.curvature().answers;
  std::vector<std::vector<std::pair<size_t, MatrixXd>>> measured(jobs.size());
  ForEachIndex(evidence.context().threads, jobs.size(),
               [&](size_t j) { measured[j] = Predict(jobs[j], answers); });
  for (size_t j = 0; j < jobs.size(); ++j) {
    MatrixOptions& options = *jobs[j].options;
    const MatrixView& view = *options.matrix;
    for (const auto& [place, changed] : measured[j]) {
      Model student = evidence.model().Clone();
      const VectorXd bias =
          Bias(view) + (jobs[j].matrix.weight - changed).transpose() * jobs[j].mean;
      SetWeight(student, SameMatrix(student, view), changed, bias);
      options.options[place].measured = evidence.kl().Of(student);
    }
    Save(evidence.store(), evidence.context().seed, options);
  }
  jobs.clear();
}

}  // namespace

double MatrixOptions::Expected(const MatrixOption& option) const {
  if (option.measured >= 0) return option.measured;
  return option.predicted *
         (option.kind == MatrixOption::Kind::kBits ? bits_correction : rank_correction);
}

std::vector<MatrixOptions> FindMatrixOptions(Evidence& evidence) {
  const Curvature& curvature = evidence.curvature();
  const Context& context = evidence.context();
  std::vector<MatrixOptions> result;
  for (const MatrixView& view : evidence.matrices()) result.push_back({.matrix = &view});
  std::vector<Job> jobs;
  double bytes = 0;
  for (size_t i = 0; i < result.size(); ++i) {
    MatrixOptions& options = result[i];
    const MatrixView& view = *options.matrix;
    if (context.Excluded(*view.node)) {
      options.reason = "excluded by the configuration";
    } else if (!curvature.outputs.contains(view.output->name())) {
      const auto why = curvature.unreachable.find(view.output->name());
      options.reason = why == curvature.unreachable.end() ? "no gradient" : why->second;
    } else {
      const RowStatistics& rows = evidence.Input(view);
      options.rows = rows.count;
      if (rows.count < kRowsPerInput * static_cast<double>(view.inputs)) {
        options.reason =
            fmt::format("no ranks: {:.0f} rows of data for {} inputs", rows.count, view.inputs);
      }
      if (!Restore(evidence.store(), context.seed, options)) {
        if (!jobs.empty() && bytes + Evidence::GramBytes(view) > Evidence::kChunkBytes) {
          RunJobs(evidence, jobs);
          bytes = 0;
        }
        bytes += Evidence::GramBytes(view);
        Evidence::Metric metric = evidence.MetricOf(view);
        jobs.push_back({&options,
                        {Weight(view), std::move(metric.gram), std::move(metric.output), {}},
                        rows.mean});
      }
    }
    context.progress("matrices", static_cast<int64_t>(i) + 1, static_cast<int64_t>(result.size()));
  }
  RunJobs(evidence, jobs);
  for (MatrixOptions& options : result) {
    options.bits_correction = Correction(options.options, MatrixOption::Kind::kBits);
    options.rank_correction = Correction(options.options, MatrixOption::Kind::kRank);
  }
  return result;
}

}  // namespace sparsefuse

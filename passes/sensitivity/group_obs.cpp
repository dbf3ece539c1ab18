#include "passes/sensitivity/group_obs.h"

#include <Eigen/Cholesky>
#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <utility>

#include "passes/statistics/dense.h"

namespace sparsefuse {
namespace {

using Eigen::Index;
using Eigen::MatrixXd;
using Indices = std::vector<Index>;

// Multiplications that a level may spend on swaps: a fraction of a second.
constexpr double kSwapBudget = 1e8;

MatrixXd Damped(const MatrixXd& gram) {
  MatrixXd damped = gram;
  damped.diagonal().array() += Decompose(gram).damping;
  return damped;
}

// tr(Bᵀ A⁻¹ B) for a positive definite A.
double InverseForm(const MatrixXd& a, const MatrixXd& b) {
  if (a.rows() == 1) return b.squaredNorm() / a(0, 0);
  const Eigen::LLT<MatrixXd> llt(a);
  return llt.matrixL().solve(b).squaredNorm();
}

// A consumer while units leave it: the rows that are left, refitted, shaped by the metric.
class Survivors {
 public:
  explicit Survivors(const ObsConsumer& consumer)
      : consumer_(&consumer), weight_(consumer.metric.Shape(consumer.weight)) {
    damped_ = Damped(consumer.gram);
  }

  // Exactly these units, free of the drift of earlier updates.
  void Reset(const std::vector<bool>& kept) {
    rows_.clear();
    gone_.clear();
    for (Index i = 0; i < damped_.rows(); ++i) {
      const int64_t unit = consumer_->unit_of[static_cast<size_t>(i)];
      (unit < 0 || kept[static_cast<size_t>(unit)] ? rows_ : gone_).push_back(i);
    }
    if (rows_.empty()) return;
    inverse_.resize(0, 0);  // before there is a new one: it is large
    const Eigen::LLT<MatrixXd> llt(damped_(rows_, rows_));
    inverse_ = MatrixXd::Identity(count(), count());
    llt.solveInPlace(inverse_);
    refit_ = weight_(rows_, Eigen::all);
    if (!gone_.empty()) refit_ += llt.solve(damped_(rows_, gone_) * weight_(gone_, Eigen::all));
  }

  // What each kept unit's removal would add to the error.
  void AddScores(std::vector<double>& scores) const {
    std::vector<Indices> places = Places(scores.size());
    for (size_t unit = 0; unit < scores.size(); ++unit) {
      const Indices& s = places[unit];
      if (s.empty()) continue;
      scores[unit] += InverseForm(inverse_(s, s), refit_(s, Eigen::all));
    }
  }

  // What each removed unit's return would take off it.
  void AddGains(std::vector<double>& gains) const {
    if (gone_.empty()) return;
    // g = H_R· (W − W'), C = H_RR − H_RK H_KK⁻¹ H_KR
    MatrixXd gradient = damped_(gone_, gone_) * weight_(gone_, Eigen::all);
    MatrixXd solved;  // H_KK⁻¹ H_KR
    if (!rows_.empty()) {
      solved = inverse_ * damped_(rows_, gone_);
      gradient += damped_(gone_, rows_) * (weight_(rows_, Eigen::all) - refit_);
    }
    std::vector<Indices> places(gains.size());
    for (size_t i = 0; i < gone_.size(); ++i) {
      places[Unit(gone_[i])].push_back(static_cast<Index>(i));
    }
    for (size_t unit = 0; unit < gains.size(); ++unit) {
      const Indices& r = places[unit];
      if (r.empty()) continue;
      Indices rows;
      for (const Index i : r) rows.push_back(gone_[static_cast<size_t>(i)]);
      MatrixXd schur = damped_(rows, rows);
      if (!rows_.empty()) schur -= damped_(rows, rows_) * solved(Eigen::all, r);
      gains[unit] += InverseForm(schur, gradient(r, Eigen::all));
    }
  }

  // W_K −= H⁻¹_KS (H⁻¹_SS)⁻¹ W_S, H⁻¹_KK −= H⁻¹_KS (H⁻¹_SS)⁻¹ H⁻¹_SK
  void Remove(const std::vector<bool>& leaves) {
    Indices s, k;
    for (Index i = 0; i < count(); ++i) {
      const int64_t unit = consumer_->unit_of[static_cast<size_t>(rows_[static_cast<size_t>(i)])];
      (unit >= 0 && leaves[static_cast<size_t>(unit)] ? s : k).push_back(i);
    }
    if (!s.empty() && !k.empty()) {
      const Eigen::LLT<MatrixXd> llt(inverse_(s, s));
      const MatrixXd solved = llt.solve(inverse_(s, k));
      // Evaluated before they replace what they are made of.
      refit_ = (refit_(k, Eigen::all) - solved.transpose() * refit_(s, Eigen::all)).eval();
      MatrixXd left = inverse_(k, k);
      left.noalias() -= inverse_(k, s) * solved;
      inverse_ = std::move(left);
    }
    Indices left;
    for (const Index i : k) left.push_back(rows_[static_cast<size_t>(i)]);
    for (const Index i : s) gone_.push_back(rows_[static_cast<size_t>(i)]);
    rows_ = std::move(left);
  }

  // Multiplications of one swap: AddGains, and Reset twice.
  double SwapCost() const {
    const auto k = static_cast<double>(rows_.size());
    return static_cast<double>(gone_.size()) * k * k + 4 * k * k * k;
  }

 private:
  Index count() const { return static_cast<Index>(rows_.size()); }
  size_t Unit(Index row) const {
    return static_cast<size_t>(consumer_->unit_of[static_cast<size_t>(row)]);
  }
  // Positions among the kept rows of each unit.
  std::vector<Indices> Places(size_t units) const {
    std::vector<Indices> places(units);
    for (Index i = 0; i < count(); ++i) {
      const Index row = rows_[static_cast<size_t>(i)];
      if (consumer_->unit_of[static_cast<size_t>(row)] >= 0) places[Unit(row)].push_back(i);
    }
    return places;
  }

  const ObsConsumer* consumer_;
  MatrixXd weight_, damped_;  // all rows
  Indices rows_, gone_;
  MatrixXd inverse_, refit_;  // of rows_
};

class LevelBuilder {
 public:
  LevelBuilder(std::span<const ObsConsumer> consumers, int64_t units)
      : kept_(static_cast<size_t>(units), true) {
    for (const ObsConsumer& consumer : consumers) survivors_.emplace_back(consumer);
    Reset();
  }

  // Down to `count` units.
  void RemoveTo(int64_t count, int64_t batch) {
    while (Count() > count) {
      const std::vector<double> scores = Scores();
      std::vector<size_t> order;
      for (size_t u = 0; u < kept_.size(); ++u) {
        if (kept_[u]) order.push_back(u);
      }
      std::stable_sort(order.begin(), order.end(),
                       [&](size_t a, size_t b) { return scores[a] < scores[b]; });
      order.resize(static_cast<size_t>(std::min(batch, Count() - count)));
      std::vector<bool> leaves(kept_.size());
      for (const size_t u : order) {
        leaves[u] = true;
        kept_[u] = false;
      }
      for (Survivors& survivors : survivors_) survivors.Remove(leaves);
    }
    Reset();
  }

  // The removed unit that helps most comes back for the one that is missed least, while that helps.
  void Swap(int64_t rounds) {
    double cost = 1;
    for (const Survivors& survivors : survivors_) cost += survivors.SwapCost();
    rounds = std::min(rounds, static_cast<int64_t>(kSwapBudget / cost));
    for (int64_t round = 0; round < rounds && Count() > 0; ++round) {
      std::vector<double> gains(kept_.size());
      for (const Survivors& survivors : survivors_) survivors.AddGains(gains);
      const auto best = std::max_element(gains.begin(), gains.end());
      const auto in = static_cast<size_t>(best - gains.begin());
      if (kept_[in]) return;
      kept_[in] = true;
      Reset();
      const std::vector<double> scores = Scores();
      size_t out = in;
      for (size_t u = 0; u < kept_.size(); ++u) {
        if (kept_[u] && scores[u] < scores[out]) out = u;
      }
      kept_[out] = false;
      Reset();
      if (out == in) return;
    }
  }

  std::vector<int64_t> Kept() const {
    std::vector<int64_t> kept;
    for (size_t u = 0; u < kept_.size(); ++u) {
      if (kept_[u]) kept.push_back(static_cast<int64_t>(u));
    }
    return kept;
  }

 private:
  int64_t Count() const { return std::count(kept_.begin(), kept_.end(), true); }
  void Reset() {
    for (Survivors& survivors : survivors_) survivors.Reset(kept_);
  }
  std::vector<double> Scores() const {
    std::vector<double> scores(kept_.size());
    for (const Survivors& survivors : survivors_) survivors.AddScores(scores);
    return scores;
  }

  std::vector<Survivors> survivors_;
  std::vector<bool> kept_;
};

}  // namespace

std::vector<ObsLevel> BuildObsLevels(std::span<const ObsConsumer> consumers, int64_t units,
                                     std::span<const int64_t> counts, const ObsOptions& options) {
  LevelBuilder builder(consumers, units);
  std::vector<ObsLevel> levels;
  for (const int64_t count : counts) {
    builder.RemoveTo(count, options.batch);
    if (count < units) builder.Swap(options.swap_rounds);
    ObsLevel level{builder.Kept(), 0};
    for (const ObsConsumer& consumer : consumers) {
      level.error += ObsError(consumer, ObsRefit(consumer, level.kept));
    }
    levels.push_back(std::move(level));
  }
  return levels;
}

MatrixXd ObsRefit(const ObsConsumer& consumer, std::span<const int64_t> kept) {
  Indices rows, gone;
  for (size_t i = 0; i < consumer.unit_of.size(); ++i) {
    const int64_t unit = consumer.unit_of[i];
    const bool stays = unit < 0 || std::binary_search(kept.begin(), kept.end(), unit);
    (stays ? rows : gone).push_back(static_cast<Index>(i));
  }
  MatrixXd refit = consumer.weight;
  if (gone.empty()) return refit;
  if (!rows.empty()) {
    const MatrixXd damped = Damped(consumer.gram)(rows, rows);
    const MatrixXd lost = consumer.gram(rows, gone) * consumer.weight(gone, Eigen::all);
    refit(rows, Eigen::all) += Eigen::LLT<MatrixXd>(damped).solve(lost);
  }
  refit(gone, Eigen::all).setZero();
  return refit;
}

double ObsError(const ObsConsumer& consumer, const MatrixXd& changed) {
  const MatrixXd delta = consumer.metric.Shape(consumer.weight - changed);
  return (consumer.gram * delta).cwiseProduct(delta).sum();
}

}  // namespace sparsefuse

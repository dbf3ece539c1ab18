// What options are judged by: gradients, second moments of inputs, and measured KL, each found when
// first asked for. Gradients and moments are the same whatever is asked for and in what order, and
// are kept on disk for later runs.

#ifndef SPARSEFUSE_PASSES_SENSITIVITY_EVIDENCE_H_
#define SPARSEFUSE_PASSES_SENSITIVITY_EVIDENCE_H_

#include <Eigen/Core>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "passes/framework/context.h"
#include "passes/sensitivity/curvature.h"
#include "passes/sensitivity/output_metric.h"
#include "passes/sensitivity/prunable.h"
#include "passes/sensitivity/select_kl.h"
#include "passes/statistics/gram.h"
#include "passes/statistics/matrix.h"
#include "passes/statistics/store.h"

namespace sparsefuse {

class Evidence {
 public:
  // `modules`: all of FindPrunable. All must outlive this. Needs context.calibration.
  Evidence(const Model& model, std::span<const Prunable> modules, const Context& context);

  const Model& model() const { return model_; }
  const Context& context() const { return context_; }
  std::span<const Prunable> modules() const { return modules_; }
  const std::vector<MatrixView>& matrices() const { return matrices_; }  // FindMatrices

  const Curvature& curvature();
  const SelectKl& kl();
  // Of the X of one of the matrices, on the fit split: centred Gram, not divided by the count.
  // Valid until the next call: memory holds the moments of one group of inputs, 128 MiB of them or
  // one larger input.
  const RowStatistics& Input(const MatrixView& view);

  // For predicting the KL that a change Δ of a matrix costs: ½ tr(Δᵀ H Δ G) an answer (K-FAC;
  // reference §6.3). Outputs have G in common up to kMostGramColumns of them: what a head or a
  // neuron leaves unrepaired lies where gradients do, unlike rounding.
  struct Metric {
    Eigen::MatrixXd gram;  // H [n, n], of centred inputs, divided by the count
    OutputMetric output;   // G [m, m]; ones where no gradient reaches the output
  };
  Metric MetricOf(const MatrixView& view);
  // Bytes of a matrix's Gram.
  static double GramBytes(const MatrixView& view);
  static constexpr double kChunkBytes = 160.0 * (1 << 20);  // of Gram matrices held at a time

  StatisticsStore& store() { return store_; }

 private:
  struct InputGroup {
    std::vector<Rows> rows;
    double bytes = 0;
  };

  void Collect(size_t group);

  const Model& model_;
  const Context& context_;
  std::span<const Prunable> modules_;
  std::vector<MatrixView> matrices_;
  Batches fit_;
  std::optional<std::string> mask_;
  StatisticsStore store_;
  std::optional<Curvature> curvature_;
  std::unique_ptr<SelectKl> kl_;
  std::vector<InputGroup> groups_;  // of distinct inputs, in topological order
  std::optional<size_t> collected_;
  std::vector<RowStatistics> statistics_;  // of groups_[collected_]
};

}  // namespace sparsefuse

#endif  // SPARSEFUSE_PASSES_SENSITIVITY_EVIDENCE_H_

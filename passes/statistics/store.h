// Statistics kept on disk, so that a second run with the same model and data need not compute them
// again. They are kept to the bit: with and without them a run gives the same result.

#ifndef SPARSEFUSE_PASSES_STATISTICS_STORE_H_
#define SPARSEFUSE_PASSES_STATISTICS_STORE_H_

#include <Eigen/Core>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "passes/statistics/gram.h"

namespace sparsefuse {

using Matrices = std::vector<Eigen::MatrixXd>;

class StatisticsStore {
 public:
  // What belongs to this model, this data and this version of ONNX Runtime; their digest is taken
  // here (all weights and data are read). In the folder "statistics" of context.cache_folder; where
  // that is empty nothing is found and nothing kept.
  StatisticsStore(const Model& model, const Batches& batches, const Context& context);

  // `what` names the matrices and everything else that they depend on ("Gram of a, b; 512
  // samples").
  std::optional<Matrices> Find(std::string_view what);
  // Written to a file of its own, then renamed. Exactly symmetric matrices take half the room. When
  // all that is kept exceeds 4 GiB the files that were written first go.
  void Keep(std::string_view what, const Matrices& matrices);

  // CollectRows of the same model and batches, or of a part of them that `what` names.
  std::vector<RowStatistics> Rows(std::string_view what, const Model& model,
                                  std::span<const RowRequest> requests, const Batches& batches,
                                  const std::optional<std::string>& mask, const Context& context);

  // What could not be read or written, one line each. No error: it is computed instead.
  const std::vector<std::string>& notes() const { return notes_; }

 private:
  std::string KeyOf(std::string_view what) const;

  std::filesystem::path folder_;  // empty: none
  std::string digest_;
  std::vector<std::string> notes_;
};

}  // namespace sparsefuse

#endif  // SPARSEFUSE_PASSES_STATISTICS_STORE_H_

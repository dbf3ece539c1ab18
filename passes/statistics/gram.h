// Statistics of activations and gradients as rows, accumulated in fp64 over batches. Everything is
// centred, which keeps the digits of features whose mean is large: the plain Gram matrix is
// gram + count · mean · meanᵀ.
//
// Memory: per request n·n doubles, and per thread a batch's rows (rows · n floats) and n·n floats.

#ifndef SPARSEFUSE_PASSES_STATISTICS_GRAM_H_
#define SPARSEFUSE_PASSES_STATISTICS_GRAM_H_

#include <Eigen/Core>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "passes/statistics/batches.h"
#include "passes/statistics/matrix.h"

namespace sparsefuse {

// A tensor read as rows of n features: along `feature_axis`, all other axes running over rows; or,
// for a convolution's input, what its window sees at each place of the output.
struct Rows {
  std::string tensor;  // a value in the main graph, of a floating-point type
  int64_t feature_axis = -1;
  const Node* window = nullptr;  // a Conv; only its weight's shape and its attributes are read
};

Rows InputRows(const MatrixView& view);  // X
// Y, or another tensor of Y's shape, such as its gradient.
Rows OutputRows(const MatrixView& view, std::string tensor = "");

struct RowRequest {
  Rows rows;
  bool gram = true;
};

struct RowStatistics {
  double count = 0;         // rows T, padding left out
  Eigen::VectorXd mean;     // [n]
  Eigen::VectorXd squares;  // [n] Σ x², not centred
  Eigen::MatrixXd gram;     // [n, n] Σ (x − mean)(x − mean)ᵀ; empty if not asked for
};

// One a request, over all batches. `mask`: FindPaddingMask of the whole model.
// UserErrors: as the engine's; E_ENGINE naming the tensor if it holds NaN or infinity.
std::vector<RowStatistics> CollectRows(const Model& model, std::span<const RowRequest> requests,
                                       const Batches& batches,
                                       const std::optional<std::string>& mask,
                                       const Context& context);

// With fewer rows an input, what a solution finds in moments is chance.
inline constexpr double kRowsPerInput = 4;

struct RowPair {
  Rows teacher, student;  // row by row the same samples and tokens; widths n and n̂ may differ
};

struct PairStatistics {
  double count = 0;
  Eigen::VectorXd teacher_mean;  // [n]
  Eigen::VectorXd student_mean;  // [n̂]
  Eigen::MatrixXd student_gram;  // [n̂, n̂] Ĥ, centred on the student's mean
  Eigen::MatrixXd cross;  // [n̂, n] C = Σ (x̂ − mean)(x − mean)ᵀ, each centred on its own
};

// Batch by batch through both models, each fed its own batches (of the same samples).
std::vector<PairStatistics> CollectPairs(const Model& teacher, const Model& student,
                                         std::span<const RowPair> pairs,
                                         const Batches& teacher_batches,
                                         const Batches& student_batches,
                                         const std::optional<std::string>& mask,
                                         const Context& context);

// How many samples a run so that the largest X of `views` takes at most 64 MiB: 1 to 16. Runs the
// first sample of the fit split to see how many rows there are.
int64_t ChooseBatch(const Model& model, std::span<const MatrixView> views, const Context& context);

}  // namespace sparsefuse

#endif  // SPARSEFUSE_PASSES_STATISTICS_GRAM_H_

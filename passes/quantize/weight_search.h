// One weight to codes: scales three ways, with and without error feedback, and the one whose block
// error is smallest.

#ifndef SPARSEFUSE_PASSES_QUANTIZE_WEIGHT_SEARCH_H_
#define SPARSEFUSE_PASSES_QUANTIZE_WEIGHT_SEARCH_H_

#include <Eigen/Core>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "passes/lower/linear.h"
#include "passes/quantize/clusters.h"
#include "passes/quantize/feedback.h"

namespace sparsefuse {

enum class FeedbackUse {
  kNever,
  kMeasured,  // where its block error is smaller
  kAlways,
};

enum class ScaleSource {
  kClusters,   // searched by weighted error, merged
  kAbsmax,     // largest magnitude of each cell
  kPerOutput,  // largest magnitude of each output
};
std::string_view ScaleSourceName(ScaleSource source);  // "fusion clusters", …

enum class ScaleChoice { kMeasured, kClusters, kAbsmax };  // the best of all; one of them alone

struct WeightRequest {
  WeightRowsView weight;
  RoundingRule rule;
  int64_t width = 0;  // inputs of a cell
  int64_t max_clusters = 64;
  FeedbackUse feedback = FeedbackUse::kMeasured;
  ScaleChoice scales = ScaleChoice::kMeasured;
  int threads = 1;
  // H over rows of the fit and the select split, [K, K]; empty: no data. Rounding sees the first;
  // what is best is decided by the second, which it has not seen.
  const Eigen::MatrixXd* fit = nullptr;
  const Eigen::MatrixXd* select = nullptr;
};

struct CodedWeight {
  std::vector<int8_t> codes = {};  // [N, K]
  CellScales scales;
  Encoding encoding = Encoding::kInt8;
  ScaleSource source = ScaleSource::kClusters;
  bool feedback = false;
  // Block errors as shares of the weight's own energy: of this one, of its 4-bit reading where it
  // is nested, and of absmax scales with nearest codes, which need no search at all.
  double error = 0, error_high = 0, plain_error = 0;
};

CodedWeight SearchWeight(const WeightRequest& request);

// As the operators read it: scale rows of the format from cells. Cells are a whole row or a
// multiple of 64 inputs.
QuantizedWeight ToOperatorWeight(const CodedWeight& coded, int64_t inputs, int64_t outputs);

}  // namespace sparsefuse

#endif  // SPARSEFUSE_PASSES_QUANTIZE_WEIGHT_SEARCH_H_

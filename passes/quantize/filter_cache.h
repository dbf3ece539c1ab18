// Quantised filters by product and number of stored channels, so that variants of one model
// quantise each once.

#ifndef SPARSEFUSE_PASSES_QUANTIZE_FILTER_CACHE_H_
#define SPARSEFUSE_PASSES_QUANTIZE_FILTER_CACHE_H_

#include <Eigen/Core>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "passes/framework/context.h"
#include "passes/quantize/convolution_weights.h"

namespace sparsefuse {

// How filters are packed in 4 bits: rounded on what `model` feeds the product on the fit split, or
// each weight to its nearest code.
struct FilterPacking {
  const Model& model;
  const Context& context;
  bool search;
  std::set<std::string> int8;  // keys of products that stay in 8 bits
};

// Moments of what the product with this key reads in `model` on the fit split, in the weight's own
// order [K, K], divided by the rows; centred, because biases are corrected for means
// (bias_correction.h); nothing where it is no plain product or the data are too few to round on.
std::optional<Eigen::MatrixXd> InputMoments(const Model& model, const Context& context,
                                            const std::string& key);

class FilterCache {
 public:
  FilterCache(PairBound bound, int threads) : bound_(bound), threads_(threads) {}
  // Filters in 4 bits but for those of `packing.int8`, of fewer than 32 weights, and with channels
  // added. `packing` must outlive the cache.
  FilterCache(PairBound bound, int threads, const FilterPacking& packing)
      : bound_(bound), threads_(threads), packing_(&packing) {}

  static int64_t Channels(const Node& product);  // of a filter
  // The product's weight as rows [M, K] in reduction order, `channels` of each filter stored (zeros
  // beyond its own).
  static std::vector<float> Rows(const Node& product, int64_t channels);
  // Depthwise filters need no pair bound: their kernel adds in 32 bits.
  PairBound BoundOf(const Node& product) const;

  const QuantizedFilters& Get(const Node& product, int64_t channels);
  const QuantizedFilters& GetInt8(const Node& product, int64_t channels);

 private:
  using Filters = std::map<std::pair<std::string, int64_t>, QuantizedFilters>;

  bool IsPacked(const Node& product, int64_t channels) const;

  PairBound bound_;
  int threads_;
  const FilterPacking* packing_ = nullptr;
  Filters int8_, packed_;
};

}  // namespace sparsefuse

#endif  // SPARSEFUSE_PASSES_QUANTIZE_FILTER_CACHE_H_

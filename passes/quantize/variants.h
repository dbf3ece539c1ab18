// Choosing between whole models by measuring them.

#ifndef SPARSEFUSE_PASSES_QUANTIZE_VARIANTS_H_
#define SPARSEFUSE_PASSES_QUANTIZE_VARIANTS_H_

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "passes/framework/context.h"

namespace sparsefuse {

struct VariantTiming {
  std::string name;
  std::vector<double> ratio_per_batch;  // baseline's shortest run / the variant's; > 1: faster
  double geometric_mean = 0;
};

// Times every variant against `baseline`, all interleaved in one thread, on samples of `data`, for
// each batch size. All models are loaded at once.
std::vector<VariantTiming> TimeVariants(
    const Model& baseline, std::span<const std::pair<std::string, const Model*>> variants,
    const Dataset& data, std::span<const int64_t> batches, const Context& context);

// The batch sizes to measure with: 1 and 8, or the only one that the model takes.
std::vector<int64_t> BatchesToTime(const Dataset& data);

// Index of the variant to use: the fastest of those that are faster than the baseline by
// kSmallestSpeedup on average and not slower at any batch size (noise allowed for); among variants
// within kSameSpeed of it the one of fewest bytes. Nothing: the baseline stays.
std::optional<size_t> ChooseVariant(std::span<const VariantTiming> timings,
                                    std::span<const uint64_t> bytes);

inline constexpr double kSmallestSpeedup = 1.03;
inline constexpr double kNotSlower = 0.98;
inline constexpr double kSameSpeed = 0.97;

}  // namespace sparsefuse

#endif  // SPARSEFUSE_PASSES_QUANTIZE_VARIANTS_H_

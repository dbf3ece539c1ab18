// Static ranges of activations, learnt from the fit split, and what follows from them: scale and
// zero point of an unsigned 8-bit tensor.

#ifndef SPARSEFUSE_PASSES_QUANTIZE_ACTIVATION_RANGES_H_
#define SPARSEFUSE_PASSES_QUANTIZE_ACTIVATION_RANGES_H_

#include <array>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "passes/framework/context.h"

namespace sparsefuse {

// Every value of one tensor over the fit split. First Measure all batches, then Count all of them.
class ActivationHistogram {
 public:
  static constexpr size_t kBins = 2048;

  void Measure(std::span<const float> values) noexcept;
  void Count(std::span<const float> values) noexcept;

  float min() const { return min_; }  // 0 before any value
  float max() const { return max_; }
  bool finite() const { return finite_; }
  int64_t values() const { return values_; }  // counted
  int64_t zeros() const { return zeros_; }    // of these, exactly 0: not in counts()
  // Equal parts of [min, max].
  const std::array<int64_t, kBins>& counts() const { return counts_; }
  double Center(size_t bin) const;

 private:
  float min_ = 0, max_ = 0;
  bool finite_ = true, measured_ = false;
  int64_t values_ = 0, zeros_ = 0;
  std::array<int64_t, kBins> counts_{};
};

struct Range {
  float low = 0, high = 0;  // low ≤ 0 ≤ high, so that zero is represented exactly
};

enum class RangeMethod {
  kMinMax,
  kPercentile,  // all but 10⁻⁵ of the values on either side
  kMse,         // least squared error of rounding and clipping
};
inline constexpr RangeMethod kRangeMethods[] = {RangeMethod::kPercentile, RangeMethod::kMinMax,
                                                RangeMethod::kMse};
std::string_view RangeMethodName(RangeMethod method);  // "percentile"

Range ChooseRange(const ActivationHistogram& histogram, RangeMethod method);
// The smallest range that holds both.
Range Union(const Range& a, const Range& b);

// real ≈ scale·(code − zero_point), code in 0…255.
struct ActivationCode {
  float scale = 1;
  uint8_t zero_point = 0;
};
ActivationCode CodeOf(const Range& range);

using Histograms = std::map<std::string, ActivationHistogram>;

inline constexpr int64_t kCalibrationSamples = 512;  // of the fit split, at most

// At most kCalibrationSamples of the fit split.
std::vector<int64_t> CalibrationSamples(const Context& context);

// Runs the model on the calibration samples and collects the named float tensors of its main graph.
// Runs in as many rounds as keep the collected tensors within 64 MiB (a single sample's tensor may
// be larger). Needs context.calibration.
Histograms CollectHistograms(const Model& model, const std::vector<std::string>& tensors,
                             const Context& context);

}  // namespace sparsefuse

#endif  // SPARSEFUSE_PASSES_QUANTIZE_ACTIVATION_RANGES_H_

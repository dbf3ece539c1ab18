#include "passes/quantize/clusters.h"

#include <algorithm>
#include <bitset>
#include <cmath>
#include <limits>
#include <map>

#include "passes/framework/parallel.h"
#include "passes/quantize/linear_weights.h"

namespace sparsefuse {
namespace {

constexpr double kInfinite = std::numeric_limits<double>::infinity();
constexpr int kLastCode = 255;

// Codes tried around a cell's absmax scale. Clipping pays at 4 bits; the pair bound may want up to
// twice the scale.
struct Steps {
  int down, up;
};
Steps StepsOf(const RoundingRule& rule) {
  const int up = rule.IsBounded() ? 16 : 4;
  return rule.encoding == Encoding::kInt8 ? Steps{8, up} : Steps{24, up};
}

double Largest(std::span<const float> values) noexcept {
  float largest = 0;
  for (const float v : values) largest = std::max(largest, std::fabs(v));
  return largest;
}

// 2^(−255/16) below the largest absmax scale, as EncodeScales has it.
float BaseOf(const WeightRowsView& weight, Encoding encoding) {
  const auto largest = static_cast<float>(Largest(weight.rows) / LargestReading(encoding));
  return std::max(largest * std::exp2(-255.0f / 16), std::numeric_limits<float>::min());
}

float ScaleOf(float base, int code) { return base * std::exp2(static_cast<float>(code) / 16); }

// The first code whose scale does not clip; 0 where even the smallest scale is too large.
int UnclippedCode(std::span<const float> cell, float base, Encoding encoding) {
  const double unclipped = Largest(cell) / LargestReading(encoding);
  if (!(unclipped > base)) return 0;
  return static_cast<int>(std::ceil(16 * std::log2(unclipped / base) - 1e-4));
}

std::span<const float> Part(std::span<const float> values, int64_t cell, int64_t width) {
  if (values.empty()) return values;
  const auto first = static_cast<size_t>(cell * width);
  return values.subspan(first, std::min(static_cast<size_t>(width), values.size() - first));
}

double Best(const std::vector<double>& errors) {
  return *std::min_element(errors.begin(), errors.end());
}

int BestCode(const std::vector<double>& errors) {
  return static_cast<int>(std::min_element(errors.begin(), errors.end()) - errors.begin());
}

std::vector<double> Sum(const std::vector<double>& a, const std::vector<double>& b) {
  std::vector<double> sum(a.size());
  for (size_t i = 0; i < a.size(); ++i) sum[i] = a[i] + b[i];
  return sum;
}

// Codes from 0 on relative to `base`, some perhaps above 255: the base moves up to the largest.
CellScales FromCodes(const WeightRowsView& weight, int64_t width, float base,
                     const std::vector<int>& codes) {
  CellScales scales{.width = width, .cells_per_row = (weight.inputs + width - 1) / width};
  const int shift = std::max(0, *std::max_element(codes.begin(), codes.end()) - kLastCode);
  scales.base = ScaleOf(base, shift);
  for (const int code : codes) {
    scales.codes.push_back(static_cast<uint8_t>(std::clamp(code - shift, 0, kLastCode)));
  }
  return scales;
}

}  // namespace

float CellScales::Scale(int64_t output, int64_t input) const {
  return DecodeScale(base, codes[static_cast<size_t>(output * cells_per_row + input / width)]);
}

int64_t CellScales::ClusterCount() const {
  std::bitset<kLastCode + 1> used;
  for (const uint8_t code : codes) used.set(code);
  return static_cast<int64_t>(used.count());
}

double CellError(std::span<const float> cell, std::span<const float> importance, float scale,
                 const RoundingRule& rule) {
  if (rule.encoding == Encoding::kInt8) {
    thread_local std::vector<int8_t> scratch;
    scratch.resize(cell.size());
    return QuantizeRow(cell, importance, scale, rule.bound, scratch);
  }
  const double inverse = 1 / static_cast<double>(scale);
  double sum = 0;
  for (size_t k = 0; k < cell.size(); ++k) {
    const double w = cell[k] * inverse;
    double error = 0;
    if (IsNested(rule.encoding)) {
      double miss[2];
      RoundNested(rule, w, w, 128, miss);
      error = rule.share8 * miss[0] * miss[0] + (1 - rule.share8) * miss[1] * miss[1];
    } else {
      error = w - RoundHalfEven(std::clamp(w, -8.0, 7.0));
      error *= error;
    }
    sum += importance.empty() ? error : importance[k] * error;
  }
  return sum * scale * scale;
}

std::vector<int> MergeClusters(const std::vector<std::vector<double>>& errors,
                               int64_t max_clusters) {
  std::map<int, std::vector<double>> clusters;  // by code
  for (const std::vector<double>& cell : errors) {
    std::vector<double>& cluster = clusters[BestCode(cell)];
    cluster = cluster.empty() ? cell : Sum(cluster, cell);
  }
  while (static_cast<int64_t>(clusters.size()) > max_clusters) {
    double least = kInfinite;
    auto cheapest = clusters.end();
    for (auto a = clusters.begin(), b = std::next(a); b != clusters.end(); ++a, ++b) {
      const double price = Best(Sum(a->second, b->second)) - Best(a->second) - Best(b->second);
      if (price < least) {
        least = price;
        cheapest = a;
      }
    }
    if (cheapest == clusters.end()) break;  // no neighbours can share a code
    const auto next = std::next(cheapest);
    std::vector<double> merged = Sum(cheapest->second, next->second);
    clusters.erase(next);
    clusters.erase(cheapest);
    const int code = BestCode(merged);
    std::vector<double>& cluster = clusters[code];
    cluster = cluster.empty() ? std::move(merged) : Sum(cluster, merged);
  }
  std::vector<int> codes;
  for (const std::vector<double>& cell : errors) {
    double least = kInfinite;
    int best = 0;
    for (const auto& [code, cluster] : clusters) {
      const double error = cell[static_cast<size_t>(code)];
      if (error < least) {
        least = error;
        best = code;
      }
    }
    codes.push_back(best);
  }
  return codes;
}

CellScales SearchScales(const WeightRowsView& weight, int64_t width,
                        std::span<const float> importance, const RoundingRule& rule,
                        int64_t max_clusters, int threads) {
  const int64_t per_row = (weight.inputs + width - 1) / width;
  const float base = BaseOf(weight, rule.encoding);
  const Steps steps = StepsOf(rule);
  const auto cells = static_cast<size_t>(weight.outputs * per_row);
  const bool merging = max_clusters <= kLastCode;
  std::vector<int> codes(cells);
  std::vector<std::vector<double>> errors(merging ? cells : 0);
  ForEachIndex(threads, static_cast<size_t>(weight.outputs), [&](size_t index) {
    const auto n = static_cast<int64_t>(index);
    for (int64_t c = 0; c < per_row; ++c) {
      const std::span<const float> cell = Part(weight.Row(n), c, width);
      const int unclipped = UnclippedCode(cell, base, rule.encoding);
      std::vector<double> own(static_cast<size_t>(kLastCode + 1 + steps.up), kInfinite);
      const int last = unclipped == 0 ? 0 : unclipped + steps.up;
      for (int code = std::max(0, unclipped - steps.down); code <= last; ++code) {
        own[static_cast<size_t>(code)] =
            CellError(cell, Part(importance, c, width), ScaleOf(base, code), rule);
      }
      const auto at = static_cast<size_t>(n * per_row + c);
      codes[at] = BestCode(own);
      if (merging) errors[at] = std::move(own);
    }
  });
  if (merging) codes = MergeClusters(errors, max_clusters);
  return FromCodes(weight, width, base, codes);
}

CellScales AbsmaxScales(const WeightRowsView& weight, int64_t width, Encoding encoding) {
  const int64_t per_row = (weight.inputs + width - 1) / width;
  const float base = BaseOf(weight, encoding);
  std::vector<int> codes;
  for (int64_t n = 0; n < weight.outputs; ++n) {
    for (int64_t c = 0; c < per_row; ++c) {
      codes.push_back(UnclippedCode(Part(weight.Row(n), c, width), base, encoding));
    }
  }
  return FromCodes(weight, width, base, codes);
}

}  // namespace sparsefuse

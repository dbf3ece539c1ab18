#include "passes/quantize/activation_ranges.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "passes/engine/engine.h"

namespace sparsefuse {
namespace {

constexpr int64_t kRoundBytes = 64 << 20;
constexpr int64_t kMostSamplesARun = 32;

constexpr double kTail = 1e-5;
constexpr int kMseSteps = 36;
constexpr double kMseSmallest = 0.3;  // of the whole range

// The value below which `share` of all values lie.
float Quantile(const ActivationHistogram& histogram, double share) {
  const double wanted = share * static_cast<double>(histogram.values());
  const double width = (static_cast<double>(histogram.max()) - histogram.min()) /
                       static_cast<double>(ActivationHistogram::kBins);
  double below = 0;
  for (size_t i = 0; i < ActivationHistogram::kBins; ++i) {
    const double low = histogram.min() + width * static_cast<double>(i);
    double count = static_cast<double>(histogram.counts()[i]);
    if (low <= 0 && 0 < low + width) count += static_cast<double>(histogram.zeros());
    if (below + count >= wanted && count > 0) {
      return static_cast<float>(low + width * (wanted - below) / count);
    }
    below += count;
  }
  return histogram.max();
}

// Σ (x − x̂)² over the histogram when coded in `range`.
double CodingError(const ActivationHistogram& histogram, const Range& range) {
  const ActivationCode code = CodeOf(range);
  double error = 0;
  for (size_t i = 0; i < ActivationHistogram::kBins; ++i) {
    if (histogram.counts()[i] == 0) continue;
    const double x = histogram.Center(i);
    const double q = std::clamp(std::nearbyint(x / code.scale) + code.zero_point, 0.0, 255.0);
    const double difference = x - code.scale * (q - code.zero_point);
    error += static_cast<double>(histogram.counts()[i]) * difference * difference;
  }
  return error;
}

int64_t Bytes(const Tensor& tensor) { return static_cast<int64_t>(tensor.bytes().size()); }

// Names of tensors that one run returns, and how many samples it takes.
struct Round {
  std::vector<std::string> tensors;
  int64_t bytes = 0;  // a sample (a fixed batch)
};

// One run on the first sample tells how large each tensor is.
std::vector<Round> PlanRounds(const Model& model, const std::vector<std::string>& tensors,
                              int64_t first_sample, const Context& context,
                              const SessionOptions& options) {
  const Session session(WithOutputs(model, tensors), options);
  const int64_t fixed = std::max<int64_t>(1, context.calibration->fixed_batch());
  std::vector<Round> rounds(1);
  const std::vector<int64_t> samples(static_cast<size_t>(fixed), first_sample);
  const std::vector<Tensor> values = session.Run(context.calibration->Gather(samples), tensors);
  for (size_t i = 0; i < tensors.size(); ++i) {
    if (rounds.back().bytes > 0 && rounds.back().bytes + Bytes(values[i]) > kRoundBytes) {
      rounds.emplace_back();
    }
    rounds.back().tensors.push_back(tensors[i]);
    rounds.back().bytes += Bytes(values[i]);
  }
  return rounds;
}

// visit(name, values) for every tensor and batch; graph inputs come from the data itself.
template <typename Visit>
void ForEachTensor(const Model& model, const std::vector<Round>& rounds,
                   const std::vector<std::string>& inputs, const std::vector<int64_t>& samples,
                   const Context& context, const SessionOptions& options, const Visit& visit) {
  for (const Round& round : rounds) {
    const Session session(WithOutputs(model, round.tensors), options);
    const int64_t batch =
        std::clamp(kRoundBytes / std::max<int64_t>(1, round.bytes), int64_t{1}, kMostSamplesARun);
    int64_t done = 0;
    ForEachBatch(session, *context.calibration, samples, batch, round.tensors,
                 [&](std::span<const Tensor> values, std::span<const int64_t> part) {
                   for (size_t i = 0; i < values.size(); ++i) {
                     visit(round.tensors[i], values[i].data<float>());
                   }
                   done += static_cast<int64_t>(part.size());
                   context.progress("activation ranges", done,
                                    static_cast<int64_t>(samples.size()));
                 });
  }
  if (inputs.empty()) return;
  for (const int64_t sample : samples) {
    for (const auto& [name, tensor] : context.calibration->Gather({&sample, 1})) {
      if (std::find(inputs.begin(), inputs.end(), name) != inputs.end()) {
        visit(name, tensor.data<float>());
      }
    }
  }
}

}  // namespace

void ActivationHistogram::Measure(std::span<const float> values) noexcept {
  for (float x : values) {
    if (!std::isfinite(x)) {
      finite_ = false;
      continue;
    }
    min_ = measured_ ? std::min(min_, x) : x;
    max_ = measured_ ? std::max(max_, x) : x;
    measured_ = true;
  }
}

void ActivationHistogram::Count(std::span<const float> values) noexcept {
  const double width = static_cast<double>(max_) - min_;
  const double bins_per_unit = width > 0 ? static_cast<double>(kBins) / width : 0;
  for (float x : values) {
    if (!std::isfinite(x)) continue;
    ++values_;
    if (x == 0) {
      ++zeros_;
      continue;
    }
    const double bin = (static_cast<double>(x) - min_) * bins_per_unit;
    counts_[static_cast<size_t>(std::clamp(bin, 0.0, static_cast<double>(kBins - 1)))] += 1;
  }
}

double ActivationHistogram::Center(size_t bin) const {
  const double width = (static_cast<double>(max_) - min_) / static_cast<double>(kBins);
  return min_ + width * (static_cast<double>(bin) + 0.5);
}

std::string_view RangeMethodName(RangeMethod method) {
  switch (method) {
    case RangeMethod::kMinMax:
      return "min-max";
    case RangeMethod::kPercentile:
      return "percentile";
    case RangeMethod::kMse:
      return "least squares";
  }
  return "";
}

Range ChooseRange(const ActivationHistogram& histogram, RangeMethod method) {
  const Range whole{std::min(histogram.min(), 0.0f), std::max(histogram.max(), 0.0f)};
  if (histogram.values() == histogram.zeros()) return whole;
  if (method == RangeMethod::kPercentile) {
    return {std::min(Quantile(histogram, kTail), 0.0f),
            std::max(Quantile(histogram, 1 - kTail), 0.0f)};
  }
  if (method == RangeMethod::kMinMax) return whole;
  Range best = whole;
  double least = CodingError(histogram, whole);
  for (int step = kMseSteps - 1; step > 0; --step) {
    const double share = kMseSmallest + (1 - kMseSmallest) * step / kMseSteps;
    const Range range{static_cast<float>(whole.low * share),
                      static_cast<float>(whole.high * share)};
    const double error = CodingError(histogram, range);
    if (error < least) {
      least = error;
      best = range;
    }
  }
  return best;
}

Range Union(const Range& a, const Range& b) {
  return {std::min(a.low, b.low), std::max(a.high, b.high)};
}

ActivationCode CodeOf(const Range& range) {
  const double width = static_cast<double>(range.high) - range.low;
  ActivationCode code;
  // A range too small to be told from zero is coded as zeros.
  if (!(width / 255 >= std::numeric_limits<float>::min())) return code;
  code.scale = static_cast<float>(width / 255);
  code.zero_point = static_cast<uint8_t>(
      std::clamp(std::nearbyint(-static_cast<double>(range.low) / code.scale), 0.0, 255.0));
  return code;
}

std::vector<int64_t> CalibrationSamples(const Context& context) {
  std::vector<int64_t> samples = context.splits.fit;
  if (static_cast<int64_t>(samples.size()) > kCalibrationSamples) {
    samples.resize(static_cast<size_t>(kCalibrationSamples));
  }
  return samples;
}

Histograms CollectHistograms(const Model& model, const std::vector<std::string>& tensors,
                             const Context& context) {
  const SessionOptions options{.threads = context.threads,
                               .operator_library = context.operator_library};
  const std::vector<int64_t> samples = CalibrationSamples(context);
  Histograms histograms;
  std::vector<std::string> inputs, inner;
  for (const std::string& name : tensors) {
    if (!histograms.try_emplace(name).second) continue;
    const Value* value = model.graph().FindValue(name);
    SF_CHECK(value, "no tensor {}", name);
    (value->is_graph_input() ? inputs : inner).push_back(name);
  }
  std::vector<Round> rounds;
  if (!inner.empty()) rounds = PlanRounds(model, inner, samples.front(), context, options);
  ForEachTensor(model, rounds, inputs, samples, context, options,
                [&](const std::string& name, std::span<const float> values) {
                  histograms[name].Measure(values);
                });
  ForEachTensor(model, rounds, inputs, samples, context, options,
                [&](const std::string& name, std::span<const float> values) {
                  histograms[name].Count(values);
                });
  return histograms;
}

}  // namespace sparsefuse

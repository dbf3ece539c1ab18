#include "passes/quantize/filter_cache.h"

#include <algorithm>
#include <optional>

#include "passes/quantize/convolution_plan.h"
#include "passes/statistics/batches.h"
#include "passes/statistics/gram.h"

namespace sparsefuse {
namespace {

constexpr size_t kMomentSamples = 128;  // of the fit split, at most

int64_t FilterCount(const Node& product) {
  const Dims& dims = product.constant_input(1)->dims();
  return product.Is("Gemm") && product.GetInt("transB", 0) == 0 ? dims[1] : dims[0];
}

}  // namespace

std::optional<Eigen::MatrixXd> InputMoments(const Model& model, const Context& context,
                                            const std::string& key) {
  const Value* output = model.graph().FindValue(key);
  const std::optional<MatrixView> view = output ? AsMatrix(*output->producer()) : std::nullopt;
  if (!view || !context.calibration) return std::nullopt;
  std::span<const int64_t> samples = context.splits.fit;
  samples = samples.first(std::min(samples.size(), kMomentSamples));
  const int64_t batch = ChooseBatch(model, std::span(&*view, 1), context);
  const RowRequest request{InputRows(*view)};
  const RowStatistics found =
      CollectRows(model, std::span(&request, 1), MakeBatches(*context.calibration, samples, batch),
                  std::nullopt, context)[0];
  if (found.count < kRowsPerInput * static_cast<double>(view->inputs)) return std::nullopt;
  return Eigen::MatrixXd(found.gram / found.count);
}

int64_t FilterCache::Channels(const Node& product) {
  return product.Is("Gemm") ? 1 : product.constant_input(1)->dims()[1];
}

std::vector<float> FilterCache::Rows(const Node& product, int64_t channels) {
  const std::vector<float> weight = product.constant_input(1)->ToFloats();
  const int64_t count = FilterCount(product);
  if (product.Is("Gemm")) {
    if (product.GetInt("transB", 0) != 0) return weight;
    return ToReductionOrder(std::span(weight), 1, static_cast<int64_t>(weight.size()) / count);
  }
  const int64_t own = Channels(product);
  std::vector<float> rows = ToReductionOrder(std::span(weight), count, own);
  if (channels == own) return rows;
  const size_t places = rows.size() / static_cast<size_t>(own);
  std::vector<float> padded(places * static_cast<size_t>(channels));
  for (size_t i = 0; i < places; ++i) {
    std::copy_n(rows.begin() + static_cast<ptrdiff_t>(i) * own, own,
                padded.begin() + static_cast<ptrdiff_t>(i) * channels);
  }
  return padded;
}

PairBound FilterCache::BoundOf(const Node& product) const {
  const bool depthwise = product.Is("Conv") && Channels(product) == 1 &&
                         product.GetInt("group", 1) == FilterCount(product);
  return depthwise ? PairBound::kNone : bound_;
}

bool FilterCache::IsPacked(const Node& product, int64_t channels) const {
  const Tensor& weight = *product.constant_input(1);
  return packing_ && !packing_->int8.contains(KeyOf(product)) && channels == Channels(product) &&
         weight.size() / FilterCount(product) >= kNibbleBlock;
}

const QuantizedFilters& FilterCache::GetInt8(const Node& product, int64_t channels) {
  const auto [it, fresh] = int8_.try_emplace({KeyOf(product), channels});
  if (fresh) {
    it->second =
        QuantizeFilters(Rows(product, channels), FilterCount(product), BoundOf(product), threads_);
  }
  return it->second;
}

const QuantizedFilters& FilterCache::Get(const Node& product, int64_t channels) {
  if (!IsPacked(product, channels)) return GetInt8(product, channels);
  const auto [it, fresh] = packed_.try_emplace({KeyOf(product), channels});
  if (!fresh) return it->second;
  const int64_t count = FilterCount(product);
  const std::vector<float> rows =
      ToStorageOrder(std::span<const float>(Rows(product, channels)), count, channels);
  std::optional<Eigen::MatrixXd> moments;
  if (packing_->search) {
    moments = InputMoments(packing_->model, packing_->context, KeyOf(product));
  }
  PackedFilters packed = RoundFilters(rows, count, moments ? &*moments : nullptr, threads_);
  const std::vector<int8_t> codes = packed.Codes();
  it->second = {ToReductionOrder(std::span<const int8_t>(codes), count, channels), packed.scales,
                packed.relative_error, std::move(packed)};
  return it->second;
}

}  // namespace sparsefuse

#include "passes/latency/latency_table.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <iterator>
#include <set>
#include <utility>

#include "onnx_io/error.h"
#include "passes/lower/linear_body.h"

namespace sparsefuse {
namespace {

constexpr int64_t kMostRows = 1024;
constexpr double kDensities[] = {0.1, 0.2, 0.3, 0.5, 0.8, 1};

// value = low + share·(high − low), between two measured points.
template <typename T>
struct Blend {
  T low, high;
  double share = 0;

  double Of(double at_low, double at_high) const {
    if (share == 0 || std::isinf(at_low)) return at_low;  // ∞ − ∞ is NaN
    return at_low + share * (at_high - at_low);
  }
};

Blend<int64_t> RowBlend(int64_t rows) {
  const auto below = static_cast<int64_t>(std::bit_floor(static_cast<uint64_t>(rows)));
  if (below >= kMostRows) return {kMostRows, kMostRows};
  return {below, rows == below ? below : 2 * below,
          static_cast<double>(rows - below) / static_cast<double>(below)};
}

Blend<double> DensityBlend(double density) {
  const double* high = std::lower_bound(std::begin(kDensities), std::end(kDensities), density);
  if (high == std::end(kDensities)) return {1, 1};
  if (high == std::begin(kDensities) || *high == density) return {*high, *high};
  return {high[-1], *high, (density - high[-1]) / (*high - high[-1])};
}

// The measured forms on both sides of this one.
std::pair<LayerForm, LayerForm> Neighbours(const LayerForm& form) {
  LayerForm low = form, high = form;
  if (form.kind == LayerForm::Kind::kOperator) {
    const Blend<double> blend = DensityBlend(form.density);
    low.density = blend.low;
    high.density = blend.high;
  }
  return {low, high};
}

double Ratio(const LatencyPoint& point, const LayerForm& form) {
  if (form.kind == LayerForm::Kind::kFloat) return 1;
  const auto [low, high] = Neighbours(form);
  const double at_low = point.ratio.at(FormName(low));
  if (form.kind != LayerForm::Kind::kOperator) return at_low;
  return DensityBlend(form.density).Of(at_low, point.ratio.at(FormName(high)));
}

std::string PointName(const LayerShape& shape, int64_t rows) {
  return fmt::format("{}x{}{}, {} rows", shape.inputs, shape.outputs, shape.bias ? "+bias" : "",
                     rows);
}

}  // namespace

std::string FormName(const LayerForm& form) {
  switch (form.kind) {
    case LayerForm::Kind::kFloat:
      return "float";
    case LayerForm::Kind::kStandardInt8:
      return "standard int8";
    case LayerForm::Kind::kMatMulNBits:
      return "MatMulNBits";
    case LayerForm::Kind::kOperator:
      break;
  }
  const bool sparse = form.density < 1;
  const std::string name = OperatorName({form.encoding, sparse, Activation::kNone});
  return sparse ? fmt::format("{} {:.4g}", name, form.density) : name;
}

LatencyTable::LatencyTable(std::string machine, std::filesystem::path file, MeasureLayer measure)
    : machine_(std::move(machine)), file_(std::move(file)), measure_(std::move(measure)) {
  if (file_.empty()) return;
  std::string problem;
  points_ = ReadLatencyCache(file_, machine_, problem);
  if (!problem.empty()) notes_.push_back(std::move(problem));
}

std::vector<double> LatencyTable::Milliseconds(const LayerShape& shape, int64_t rows,
                                               std::span<const LayerForm> forms) {
  SF_CHECK(rows >= 1);
  const Blend<int64_t> blend = RowBlend(rows);
  const LatencyPoint& low = Measured(shape, blend.low, forms);
  const LatencyPoint& high = Measured(shape, blend.high, forms);
  Save();
  const double beyond =
      static_cast<double>(std::max(rows, kMostRows)) / static_cast<double>(kMostRows);
  std::vector<double> milliseconds;
  for (const LayerForm& form : forms) {
    milliseconds.push_back(
        beyond * blend.Of(low.float_ms * Ratio(low, form), high.float_ms * Ratio(high, form)));
  }
  return milliseconds;
}

const LatencyPoint& LatencyTable::Measured(const LayerShape& shape, int64_t rows,
                                           std::span<const LayerForm> forms) {
  LatencyPoint& point = points_[PointName(shape, rows)];
  std::vector<LayerForm> missing = {LayerForm{}};  // float first, the reference of all
  std::set<std::string> names = {FormName(LayerForm{})};
  const auto require = [&](const LayerForm& form) {
    const std::string name = FormName(form);
    if (!point.ratio.contains(name) && names.insert(name).second) missing.push_back(form);
  };
  for (const LayerForm& form : forms) {
    const auto [low, high] = Neighbours(form);
    require(low);
    require(high);
  }
  if (missing.size() == 1 && point.float_ms > 0) return point;
  const std::vector<double> ms = measure_(shape, rows, missing);
  SF_CHECK(ms.size() == missing.size() && ms[0] > 0 && std::isfinite(ms[0]));
  if (point.float_ms == 0) point.float_ms = ms[0];
  for (size_t i = 1; i < ms.size(); ++i) {
    SF_CHECK(ms[i] > 0);
    point.ratio[FormName(missing[i])] = ms[i] / ms[0];
  }
  unsaved_ = true;
  return point;
}

void LatencyTable::Save() {
  if (file_.empty() || !unsaved_) return;
  std::string problem;
  WriteLatencyCache(file_, machine_, points_, problem);
  unsaved_ = false;
  if (problem.empty()) return;
  notes_.push_back(std::move(problem));
  file_.clear();  // once is enough
}

FormChoice ChooseForm(LatencyTable& table, const LayerShape& shape, std::span<const int64_t> rows,
                      std::span<const LayerForm> forms) {
  SF_CHECK(!rows.empty() && !forms.empty());
  std::vector<double> logs(forms.size());
  for (const int64_t count : rows) {
    const std::vector<double> ms = table.Milliseconds(shape, count, forms);
    for (size_t i = 0; i < forms.size(); ++i) logs[i] += std::log(ms[0] / ms[i]);
  }
  FormChoice choice;
  for (const double sum : logs) {
    choice.speedup.push_back(std::exp(sum / static_cast<double>(rows.size())));
  }
  const auto fastest = std::max_element(choice.speedup.begin() + 1, choice.speedup.end());
  if (fastest != choice.speedup.end() && *fastest >= kSmallestGain) {
    choice.form = static_cast<size_t>(fastest - choice.speedup.begin());
  }
  return choice;
}

}  // namespace sparsefuse

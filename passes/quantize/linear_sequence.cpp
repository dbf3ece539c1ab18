#include "passes/quantize/linear_sequence.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <optional>
#include <string_view>

#include "passes/quantize/input_shapes.h"
#include "passes/quantize/smoothing.h"
#include "passes/statistics/cuts.h"
#include "passes/statistics/gram.h"

namespace sparsefuse {
namespace {

using Eigen::MatrixXd;
using Eigen::VectorXd;

constexpr double kRowsPerInput = 4;
// Grams cost rows·K²: more rows an input than this change little.
constexpr int64_t kEnoughRowsPerInput = 16;
constexpr size_t kFewestSamples = 64, kMostSamples = 512;
constexpr int64_t kSmoothingRows = 256;

std::vector<int64_t> Some(std::vector<int64_t> samples, size_t at_most) {
  if (samples.size() > at_most) samples.resize(at_most);
  return samples;
}

// A layer's input as the student computes it.
struct InputData {
  RowStatistics fit, select;
  // Some rows, where a layer is to be smoothed or gated; else empty.
  ActivationRows fit_rows, select_rows;
};

ActivationRows Smoothed(ActivationRows rows, const std::vector<float>& smooth) {
  for (size_t k = 0; k < smooth.size(); ++k) rows.col(static_cast<Eigen::Index>(k)) *= smooth[k];
  return rows;
}

// Σ over rows, mean taken off or not, over the number of rows; X ⊙ smooth instead of X.
MatrixXd Gram(const RowStatistics& statistics, bool centred, const std::vector<float>& smooth) {
  MatrixXd h = statistics.gram / std::max(1.0, statistics.count);
  if (!centred) h += statistics.mean * statistics.mean.transpose();
  if (!smooth.empty()) {
    const VectorXd factors =
        Eigen::Map<const Eigen::VectorXf>(smooth.data(), static_cast<Eigen::Index>(smooth.size()))
            .cast<double>();
    h = factors.asDiagonal() * h * factors.asDiagonal();
  }
  return h;
}

// Wᵀμ, rows [N, K].
VectorXd MeanOutput(std::span<const float> rows, int64_t inputs, const VectorXd& mean) {
  const auto outputs = static_cast<int64_t>(rows.size()) / inputs;
  VectorXd sum = VectorXd::Zero(outputs);
  for (int64_t n = 0; n < outputs; ++n) {
    for (int64_t k = 0; k < inputs; ++k) {
      sum[n] += mean[k] * static_cast<double>(rows[static_cast<size_t>(n * inputs + k)]);
    }
  }
  return sum;
}

class Sequence {
 public:
  Sequence(const Model& model, const std::vector<LinearLayer>& layers,
           const std::vector<LayerPlan>& plans, const SequenceOptions& options,
           const Context& context)
      : layers_(layers),
        plans_(plans),
        options_(options),
        context_(context),
        student_(model.Clone()),
        results_(layers.size()) {}

  std::vector<QuantizedLayer> Run(const Model& model) {
    if (!context_.calibration) {
      for (size_t i = 0; i < layers_.size(); ++i) Quantize(i, nullptr);
      return std::move(results_);
    }
    Start(model);
    Walk(model);
    return std::move(results_);
  }

 private:
  void Start(const Model& model);
  size_t EnoughSamples(const Model& model) const;
  void Walk(const Model& model);
  bool Advance(std::string_view from, const std::string& to);
  InputData Collect(size_t first, size_t last, std::string_view from, std::string_view to) const;
  ActivationRows SampleRows(const Model& segment, const Batches& from, const std::string& input,
                            int64_t inputs) const;
  void FitGateOf(QuantizedLayer& result, const LinearLayer& layer, const InputData& data) const;
  void Quantize(size_t index, const InputData* data);
  void ApplyToStudent(size_t index, std::span<const float> effective);

  const std::vector<LinearLayer>& layers_;
  const std::vector<LayerPlan>& plans_;
  const SequenceOptions& options_;
  const Context& context_;
  Model student_;
  std::vector<QuantizedLayer> results_;
  Batches fit_, select_;  // the student's, at the cut that has been reached
  std::optional<std::string> mask_;
  std::map<std::string, VectorXd> teacher_mean_;  // by input
  size_t done_ = 0;
};

// So that every layer meets kEnoughRowsPerInput rows, if there are that many.
size_t Sequence::EnoughSamples(const Model& model) const {
  const int64_t fixed = context_.calibration->fixed_batch();
  const int64_t batch = fixed ? fixed : 1;
  const std::vector<Dims> shapes = InputShapes(model, layers_, batch, context_);
  int64_t enough = 0;
  for (size_t i = 0; i < layers_.size(); ++i) {
    int64_t elements = 1;
    for (const int64_t length : shapes[i]) elements *= length;
    const int64_t rows = std::max<int64_t>(1, elements / layers_[i].inputs);
    enough = std::max(enough, kEnoughRowsPerInput * layers_[i].inputs * batch / rows);
  }
  return std::clamp(static_cast<size_t>(enough), kFewestSamples, kMostSamples);
}

void Sequence::Start(const Model& model) {
  std::vector<MatrixView> views;
  std::vector<RowRequest> requests;
  for (size_t i = 0; i < layers_.size(); ++i) {
    if (!plans_[i].quantized) continue;
    if (const auto view = AsMatrix(*layers_[i].product)) views.push_back(*view);
    const std::string& input = layers_[i].input->name();
    if (teacher_mean_.emplace(input, VectorXd()).second) {
      requests.push_back({.rows = {.tensor = input}, .gram = false});
    }
  }
  const Dataset& data = *context_.calibration;
  const int64_t batch = ChooseBatch(model, views, context_);
  const size_t enough = EnoughSamples(model);
  fit_ = MakeBatches(data, Some(context_.splits.fit, enough), batch);
  select_ = MakeBatches(data, Some(context_.splits.select, enough / 2), batch);
  mask_ = FindPaddingMask(model, fit_);
  const std::vector<RowStatistics> means = CollectRows(model, requests, fit_, mask_, context_);
  for (size_t i = 0; i < requests.size(); ++i) {
    teacher_mean_[requests[i].rows.tensor] = means[i].mean;
  }
}

// To the next cut. False where the model cannot be taken apart there.
bool Sequence::Advance(std::string_view from, const std::string& to) {
  std::optional<Model> segment;
  try {
    segment = Segment(student_, from, to);
    Segment(student_, to, "");
  } catch (const UserError&) {
    return false;  // the tensor's type is not known
  }
  for (Batches* batches : {&fit_, &select_}) {
    std::vector<std::vector<Tensor>> results = RunBatches({*segment, *batches, {to}}, context_);
    for (size_t b = 0; b < batches->size(); ++b) {
      std::erase_if((*batches)[b], [&](const auto& feed) { return feed.first == from; });
      (*batches)[b].emplace_back(to, std::move(results[b][0]));
    }
  }
  return true;
}

ActivationRows Sequence::SampleRows(const Model& segment, const Batches& from,
                                    const std::string& input, int64_t inputs) const {
  const size_t most_batches = 4;
  std::vector<size_t> chosen;
  for (size_t b = 0; b < from.size(); b += std::max<size_t>(1, from.size() / most_batches)) {
    chosen.push_back(b);
  }
  Batches batches;
  for (const size_t b : chosen) batches.push_back(from[b]);
  const std::vector<std::vector<Tensor>> tensors =
      RunBatches({segment, batches, {input}}, context_);
  std::vector<float> values;
  const int64_t share = kSmoothingRows / static_cast<int64_t>(batches.size());
  for (size_t b = 0; b < batches.size(); ++b) {
    const Tensor& tensor = tensors[b][0];
    Dims leading = tensor.dims();
    leading.pop_back();
    const std::vector<bool> kept = KeptRows(mask_, batches[b], leading);
    const std::vector<float> all = tensor.ToFloats();
    std::vector<int64_t> rows;
    for (int64_t r = 0; r < tensor.size() / inputs; ++r) {
      if (kept.empty() || kept[static_cast<size_t>(r)]) rows.push_back(r);
    }
    const auto count = static_cast<int64_t>(rows.size());
    const int64_t step = std::max<int64_t>(1, count / std::max<int64_t>(1, share));
    for (int64_t i = 0; i < count; i += step) {
      const auto row = all.begin() + rows[static_cast<size_t>(i)] * inputs;
      values.insert(values.end(), row, row + inputs);
    }
  }
  return Eigen::Map<const ActivationRows>(
      values.data(), static_cast<Eigen::Index>(values.size()) / inputs, inputs);
}

// Of the layers [first, last), which read the same tensor.
InputData Sequence::Collect(size_t first, size_t last, std::string_view from,
                            std::string_view to) const {
  const Model segment = Segment(student_, from, to);
  const std::string& input = layers_[first].input->name();
  const RowRequest request{.rows = {.tensor = input}};
  const auto collect = [&](const Batches& batches) {
    return CollectRows(segment, {&request, 1}, batches, mask_, context_)[0];
  };
  InputData data{collect(fit_), collect(select_), {}, {}};
  for (size_t i = first; i < last; ++i) {
    const LayerPlan& plan = plans_[i];
    if (!plan.quantized) continue;
    if ((plan.smooth || plan.gated) && data.fit_rows.rows() == 0) {
      data.fit_rows = SampleRows(segment, fit_, input, layers_[i].inputs);
    }
    if (plan.gated && data.select_rows.rows() == 0) {
      data.select_rows = SampleRows(segment, select_, input, layers_[i].inputs);
    }
  }
  return data;
}

void Sequence::Walk(const Model& model) {
  std::map<const Node*, size_t> order;
  for (const Node* node : model.graph().TopologicalOrder()) order.emplace(node, order.size());
  std::vector<std::string> ends = FindCuts(model);
  ends.push_back("");
  std::string from;
  size_t next = 0;
  bool advancing = true;
  for (const std::string& to : ends) {
    const Value* end = to.empty() ? nullptr : model.graph().FindValue(to);
    const size_t last = end ? order.at(end->producer()) : order.size();
    const std::string until = advancing ? to : "";
    while (next < layers_.size() && order.at(layers_[next].product) <= last) {
      size_t group_end = next + 1;
      while (group_end < layers_.size() && layers_[group_end].input == layers_[next].input &&
             order.at(layers_[group_end].product) <= last) {
        ++group_end;
      }
      const bool needed = std::any_of(plans_.begin() + static_cast<ptrdiff_t>(next),
                                      plans_.begin() + static_cast<ptrdiff_t>(group_end),
                                      [](const LayerPlan& plan) { return plan.quantized; });
      if (needed) {
        const InputData data = Collect(next, group_end, from, until);
        for (size_t i = next; i < group_end; ++i) Quantize(i, &data);
      }
      next = group_end;
    }
    if (next == layers_.size() || to.empty()) break;
    if (advancing) advancing = Advance(from, to);
    if (advancing) from = to;
  }
}

void Sequence::Quantize(size_t index, const InputData* data) {
  const LinearLayer& layer = layers_[index];
  const LayerPlan& plan = plans_[index];
  if (!plan.quantized) return;
  QuantizedLayer& result = results_[index];
  const std::vector<float> rows = layer.WeightRows();
  result.has_data = data && data->fit.count > 0;
  const bool shared = plan.same_as != index;
  if (!shared) {
    WeightRequest request{.weight = {rows, layer.inputs, layer.outputs},
                          .rule = plan.rule,
                          .width = plan.width,
                          .max_clusters = options_.max_clusters,
                          .feedback = plan.feedback,
                          .scales = options_.scales,
                          .threads = context_.threads};
    result.no_feedback = plan.no_feedback;
    MatrixXd fit, select;
    std::vector<float> smoothed;
    if (result.has_data) {
      if (plan.smooth) {
        Smoothing smoothing =
            ChooseSmoothing(data->fit_rows, request.weight, plan.width, plan.rule);
        result.alpha = smoothing.alpha;
        result.smooth = std::move(smoothing.smooth);
      }
      // Biases make up for what is lost on average, but those of nested weights for one reading
      // alone.
      const bool centred = options_.bias_correction && !IsNested(plan.rule.encoding);
      fit = Gram(data->fit, centred, result.smooth);
      select = data->select.count > 0 ? Gram(data->select, centred, result.smooth) : fit;
      request.fit = &fit;
      request.select = &select;
      const double wanted = kRowsPerInput * static_cast<double>(layer.inputs);
      if (data->fit.count < wanted && plan.feedback != FeedbackUse::kNever) {
        request.feedback = FeedbackUse::kNever;
        result.no_feedback = fmt::format("{:.0f} rows of data for {} inputs, 4 an input needed",
                                         data->fit.count, layer.inputs);
      }
    } else if (plan.feedback != FeedbackUse::kNever) {
      result.no_feedback = "no calibration data";
    }
    if (!result.smooth.empty()) {
      smoothed = rows;
      for (size_t i = 0; i < smoothed.size(); ++i) {
        smoothed[i] /= result.smooth[i % static_cast<size_t>(layer.inputs)];
      }
      request.weight.rows = smoothed;
    }
    result.coded = SearchWeight(request);
    if (plan.gated && result.has_data) FitGateOf(result, layer, *data);
  }
  context_.progress("quantised weights", static_cast<int64_t>(++done_),
                    static_cast<int64_t>(layers_.size()));
  if (!result.has_data) return;
  const QuantizedLayer& source = results_[plan.same_as];
  std::vector<float> effective =
      Decode(source.coded.codes, source.coded.scales, layer.inputs, source.coded.encoding);
  if (!source.smooth.empty()) {
    for (size_t i = 0; i < effective.size(); ++i) {
      effective[i] *= source.smooth[i % static_cast<size_t>(layer.inputs)];
    }
  }
  if (options_.bias_correction) {
    const VectorXd change = MeanOutput(rows, layer.inputs, teacher_mean_.at(layer.input->name())) -
                            MeanOutput(effective, layer.inputs, data->fit.mean);
    const Eigen::VectorXf narrow = change.cast<float>();
    result.bias_change.assign(narrow.data(), narrow.data() + narrow.size());
  }
  if (options_.student_inputs) ApplyToStudent(index, effective);
}

void Sequence::FitGateOf(QuantizedLayer& result, const LinearLayer& layer,
                         const InputData& data) const {
  const CodedWeight& coded = result.coded;
  std::vector<float> difference =
      Decode(coded.codes, coded.scales, layer.inputs, coded.encoding, Reading::kFull);
  const std::vector<float> high =
      Decode(coded.codes, coded.scales, layer.inputs, coded.encoding, Reading::kHigh);
  for (size_t i = 0; i < difference.size(); ++i) difference[i] -= high[i];
  result.gate = FitGate(Smoothed(data.fit_rows, result.smooth),
                        Smoothed(data.select_rows, result.smooth), difference, layer.outputs);
}

void Sequence::ApplyToStudent(size_t index, std::span<const float> effective) {
  const LinearLayer& layer = layers_[index];
  Node* node = student_.graph().FindValue(layer.product->output(0)->name())->producer();
  const std::optional<MatrixView> view = AsMatrix(*node);
  if (!view) return;  // stays in float for those behind it
  VectorXd bias = Bias(*view);
  const std::vector<float>& change = results_[index].bias_change;
  for (size_t n = 0; n < change.size(); ++n) bias[static_cast<Eigen::Index>(n)] += change[n];
  SetWeight(student_, *view,
            Eigen::Map<const Eigen::MatrixXf>(effective.data(), layer.inputs, layer.outputs)
                .cast<double>(),
            bias);
}

}  // namespace

std::vector<QuantizedLayer> QuantizeInSequence(const Model& model,
                                               const std::vector<LinearLayer>& layers,
                                               const std::vector<LayerPlan>& plans,
                                               const SequenceOptions& options,
                                               const Context& context) {
  return Sequence(model, layers, plans, options, context).Run(model);
}

}  // namespace sparsefuse

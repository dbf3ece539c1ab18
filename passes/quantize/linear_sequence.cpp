#include "passes/quantize/linear_sequence.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>

#include "passes/quantize/input_shapes.h"
#include "passes/quantize/smoothing.h"
#include "passes/sparsify/apply.h"
#include "passes/statistics/gram.h"
#include "passes/statistics/student_walk.h"

namespace sparsefuse {
namespace {

using Eigen::MatrixXd;
using Eigen::VectorXd;

// Grams cost rows·K²: more rows an input than this change little.
constexpr int64_t kEnoughRowsPerInput = 16;
constexpr size_t kFewestSamples = 64, kMostSamples = 512;
constexpr int64_t kSmoothingRows = 256;

std::vector<int64_t> Some(std::vector<int64_t> samples, size_t at_most) {
  if (samples.size() > at_most) samples.resize(at_most);
  return samples;
}

// A tensor that layers read, as the student computes it.
struct InputData {
  const Value* tensor = nullptr;
  VectorXd teacher_mean;  // the original's
  RowStatistics fit, select;
  // Some rows, where a layer is to be smoothed or gated, or its zeros counted; else empty.
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
      : model_(model),
        layers_(layers),
        plans_(plans),
        options_(options),
        context_(context),
        results_(layers.size()) {}

  std::vector<QuantizedLayer> Run() {
    if (context_.calibration) Start();
    for (size_t i = 0; i < layers_.size(); ++i) {
      if (plans_[i].quantized) Quantize(i);
    }
    return std::move(results_);
  }

 private:
  void Start();
  void Quantize(size_t index);
  size_t EnoughSamples() const;
  void Collect(size_t index);
  ActivationRows SampleRows(const Batches& from, const LinearLayer& layer) const;
  void Anchor(const LinearLayer& layer, std::vector<float>& rows, VectorXd& mean_output);
  void Search(size_t index, std::span<const float> rows);
  void FitGateOf(QuantizedLayer& result, const LinearLayer& layer) const;
  std::vector<float> Effective(size_t index) const;
  void ApplyToStudent(size_t index, std::span<const float> effective);

  const Model& model_;
  const std::vector<LinearLayer>& layers_;
  const std::vector<LayerPlan>& plans_;
  const SequenceOptions& options_;
  const Context& context_;
  std::vector<QuantizedLayer> results_;
  std::optional<StudentWalk> walk_;  // with data
  InputData data_;                   // of the layer that is being quantised
  int64_t done_ = 0;
};

// So that every layer meets kEnoughRowsPerInput rows, if there are that many.
size_t Sequence::EnoughSamples() const {
  const int64_t fixed = context_.calibration->fixed_batch();
  const int64_t batch = fixed ? fixed : 1;
  const std::vector<Dims> shapes = InputShapes(model_, layers_, batch, context_);
  int64_t enough = 0;
  for (size_t i = 0; i < layers_.size(); ++i) {
    int64_t elements = 1;
    for (const int64_t length : shapes[i]) elements *= length;
    const int64_t rows = std::max<int64_t>(1, elements / layers_[i].inputs);
    enough = std::max(enough, kEnoughRowsPerInput * layers_[i].inputs * batch / rows);
  }
  return std::clamp(static_cast<size_t>(enough), kFewestSamples, kMostSamples);
}

void Sequence::Start() {
  std::vector<MatrixView> views;
  for (size_t i = 0; i < layers_.size(); ++i) {
    if (!plans_[i].quantized) continue;
    if (const auto view = AsMatrix(*layers_[i].product)) views.push_back(*view);
  }
  const size_t enough = EnoughSamples();
  walk_.emplace(
      model_, views,
      WalkSamples{Some(context_.splits.fit, enough), Some(context_.splits.select, enough / 2)},
      context_);
}

ActivationRows Sequence::SampleRows(const Batches& from, const LinearLayer& layer) const {
  const Model segment = walk_->Part(Side::kStudent);
  const int64_t inputs = layer.inputs;
  const size_t most_batches = 4;
  std::vector<size_t> chosen;
  for (size_t b = 0; b < from.size(); b += std::max<size_t>(1, from.size() / most_batches)) {
    chosen.push_back(b);
  }
  Batches batches;
  for (const size_t b : chosen) batches.push_back(from[b]);
  const std::vector<std::vector<Tensor>> tensors =
      RunBatches({segment, batches, {layer.input->name()}}, context_);
  std::vector<float> values;
  const int64_t share = kSmoothingRows / static_cast<int64_t>(batches.size());
  for (size_t b = 0; b < batches.size(); ++b) {
    const Tensor& tensor = tensors[b][0];
    Dims leading = tensor.dims();
    leading.pop_back();
    const std::vector<bool> kept = KeptRows(walk_->mask(), batches[b], leading);
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

void Sequence::Collect(size_t index) {
  const LinearLayer& layer = layers_[index];
  const LayerPlan& plan = plans_[index];
  walk_->Reach(*layer.product);
  if (data_.tensor != layer.input) {
    data_ = {.tensor = layer.input};
    const auto collect = [&](Side side, const Batches& batches, bool gram) {
      const RowRequest request{{.tensor = layer.input->name()}, gram};
      return CollectRows(walk_->Part(side), {&request, 1}, batches, walk_->mask(), context_)[0];
    };
    const std::optional<MatrixView> view = AsMatrix(*layer.product);
    if (plan.anchored && view) {
      const PairStatistics& pair = walk_->Inputs(*view);
      data_.teacher_mean = pair.teacher_mean;
      data_.fit = {pair.count, pair.student_mean, {}, pair.student_gram};
    } else {
      data_.teacher_mean = collect(Side::kTeacher, walk_->Fit(Side::kTeacher), false).mean;
      data_.fit = collect(Side::kStudent, walk_->Fit(Side::kStudent), true);
    }
    data_.select = collect(Side::kStudent, walk_->Select(Side::kStudent), true);
  }
  if ((plan.smooth || plan.gated || plan.counts_zeros) && data_.fit_rows.rows() == 0) {
    data_.fit_rows = SampleRows(walk_->Fit(Side::kStudent), layer);
  }
  if (plan.gated && data_.select_rows.rows() == 0) {
    data_.select_rows = SampleRows(walk_->Select(Side::kStudent), layer);
  }
}

void Sequence::Anchor(const LinearLayer& layer, std::vector<float>& rows, VectorXd& mean_output) {
  const std::optional<MatrixView> view = AsMatrix(*layer.product);
  if (!view) return;
  const PairStatistics& pair = walk_->Inputs(*view);
  const std::vector<OutputTarget> targets = walk_->Targets(*view);
  // As it is, it meets the first target.
  const std::vector<Refit> solutions =
      SolveWithZeros(*view, ExistingZeros(Weight(*view), Pattern::kBlock), Pattern::kBlock, pair,
                     std::span(targets).subspan(1), options_.bias_correction);
  const std::optional<size_t> taken = walk_->TakeBest(*view, solutions, true);
  if (!taken) return;
  const auto& [weight, bias] = solutions[*taken];
  const Eigen::MatrixXf narrow = weight.cast<float>();
  rows.assign(narrow.data(), narrow.data() + narrow.size());
  mean_output = weight.transpose() * pair.student_mean + bias - Bias(*view);
}

void Sequence::Search(size_t index, std::span<const float> rows) {
  const LinearLayer& layer = layers_[index];
  const LayerPlan& plan = plans_[index];
  QuantizedLayer& result = results_[index];
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
      Smoothing smoothing = ChooseSmoothing(data_.fit_rows, request.weight, plan.width, plan.rule);
      result.alpha = smoothing.alpha;
      result.smooth = std::move(smoothing.smooth);
    }
    // Biases make up for what is lost on average, but those of nested weights for one reading
    // alone.
    const bool centred = options_.bias_correction && !IsNested(plan.rule.encoding);
    fit = Gram(data_.fit, centred, result.smooth);
    select = data_.select.count > 0 ? Gram(data_.select, centred, result.smooth) : fit;
    request.fit = &fit;
    request.select = &select;
    const double wanted = kRowsPerInput * static_cast<double>(layer.inputs);
    if (data_.fit.count < wanted && plan.feedback != FeedbackUse::kNever) {
      request.feedback = FeedbackUse::kNever;
      result.no_feedback = fmt::format("{:.0f} rows of data for {} inputs, 4 an input needed",
                                       data_.fit.count, layer.inputs);
    }
  } else if (plan.feedback != FeedbackUse::kNever) {
    result.no_feedback = "no calibration data";
  }
  if (!result.smooth.empty()) {
    smoothed.assign(rows.begin(), rows.end());
    for (size_t i = 0; i < smoothed.size(); ++i) {
      smoothed[i] /= result.smooth[i % static_cast<size_t>(layer.inputs)];
    }
    request.weight.rows = smoothed;
  }
  result.coded = SearchWeight(request);
  if (plan.gated && result.has_data) FitGateOf(result, layer);
}

// What the codes stand for, [N, K], smoothing undone; of nested ones a blend of both readings.
std::vector<float> Sequence::Effective(size_t index) const {
  const QuantizedLayer& source = results_[plans_[index].same_as];
  const int64_t inputs = layers_[index].inputs;
  std::vector<float> effective =
      Decode(source.coded.codes, source.coded.scales, inputs, source.coded.encoding);
  const RoundingRule& rule = plans_[index].rule;
  if (IsNested(rule.encoding)) {
    // Later layers make up for one student: more of what the 8-bit reading gives, which loses far
    // less and would lose more by making up for the other's errors.
    const auto high = static_cast<float>((1 - rule.share8) * (1 - rule.share8));
    const std::vector<float> coarse = Decode(source.coded.codes, source.coded.scales, inputs,
                                             source.coded.encoding, Reading::kHigh);
    for (size_t i = 0; i < effective.size(); ++i) {
      effective[i] += high * (coarse[i] - effective[i]);
    }
  }
  if (source.smooth.empty()) return effective;
  for (size_t i = 0; i < effective.size(); ++i) {
    effective[i] *= source.smooth[i % static_cast<size_t>(inputs)];
  }
  return effective;
}

void Sequence::Quantize(size_t index) {
  const LinearLayer& layer = layers_[index];
  const LayerPlan& plan = plans_[index];
  QuantizedLayer& result = results_[index];
  std::vector<float> rows = layer.WeightRows();
  VectorXd mean_output;  // wanted, without the bias
  if (walk_) {
    Collect(index);
    result.has_data = data_.fit.count > 0;
    mean_output = MeanOutput(rows, layer.inputs, data_.teacher_mean);
  }
  if (plan.anchored && result.has_data) Anchor(layer, rows, mean_output);
  if (plan.same_as == index) Search(index, rows);
  if (plan.counts_zeros && result.has_data) {
    result.zero_inputs = ZeroCodeShare(Smoothed(data_.fit_rows, results_[plan.same_as].smooth));
  }
  context_.progress("quantised weights", ++done_, std::ssize(layers_));
  if (!result.has_data) return;
  const std::vector<float> effective = Effective(index);
  if (options_.bias_correction) {
    const Eigen::VectorXf change =
        (mean_output - MeanOutput(effective, layer.inputs, data_.fit.mean)).cast<float>();
    result.bias_change.assign(change.data(), change.data() + change.size());
  }
  if (options_.student_inputs) ApplyToStudent(index, effective);
}

void Sequence::FitGateOf(QuantizedLayer& result, const LinearLayer& layer) const {
  const CodedWeight& coded = result.coded;
  std::vector<float> difference =
      Decode(coded.codes, coded.scales, layer.inputs, coded.encoding, Reading::kFull);
  const std::vector<float> high =
      Decode(coded.codes, coded.scales, layer.inputs, coded.encoding, Reading::kHigh);
  for (size_t i = 0; i < difference.size(); ++i) difference[i] -= high[i];
  result.gate = FitGate(Smoothed(data_.fit_rows, result.smooth),
                        Smoothed(data_.select_rows, result.smooth), difference, layer.outputs);
}

void Sequence::ApplyToStudent(size_t index, std::span<const float> effective) {
  const LinearLayer& layer = layers_[index];
  const std::optional<MatrixView> view = AsMatrix(*layer.product);
  if (!view) return;  // stays in float for those behind it
  VectorXd bias = Bias(*view);
  const std::vector<float>& change = results_[index].bias_change;
  for (size_t n = 0; n < change.size(); ++n) bias[static_cast<Eigen::Index>(n)] += change[n];
  Model student = walk_->student().Clone();
  SetWeight(student, SameMatrix(student, *view),
            Eigen::Map<const Eigen::MatrixXf>(effective.data(), layer.inputs, layer.outputs)
                .cast<double>(),
            bias);
  walk_->Accept(std::move(student));
}

}  // namespace

std::vector<QuantizedLayer> QuantizeInSequence(const Model& model,
                                               const std::vector<LinearLayer>& layers,
                                               const std::vector<LayerPlan>& plans,
                                               const SequenceOptions& options,
                                               const Context& context) {
  return Sequence(model, layers, plans, options, context).Run();
}

}  // namespace sparsefuse

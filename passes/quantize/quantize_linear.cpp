#include "passes/quantize/quantize_linear.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <deque>
#include <nlohmann/json.hpp>
#include <set>

#include "passes/quantize/embedding.h"
#include "passes/quantize/linear.h"
#include "passes/quantize/linear_forms.h"
#include "passes/quantize/linear_statistics.h"

namespace sparsefuse {
namespace {

bool AllFinite(std::span<const float> values) {
  for (float v : values) {
    if (!std::isfinite(v)) return false;
  }
  return true;
}

bool IsUnused(const Value* value) { return value->uses().empty() && !value->is_graph_output(); }

// Values that replaced nodes read. Transposes of constants go first, for what they read.
void RemoveUnused(Graph& graph, std::set<Value*> values) {
  for (Value* value : std::vector<Value*>(values.begin(), values.end())) {
    Node* transpose = value->producer();
    if (!transpose || transpose->inputs().empty() || !IsUnused(value)) continue;
    values.erase(value);
    values.insert(transpose->input(0));
    graph.RemoveNode(transpose);
  }
  for (Value* value : values) {
    if (!IsUnused(value)) continue;
    if (value->producer()) {
      graph.RemoveNode(value->producer());
    } else if (!value->is_graph_input()) {
      graph.RemoveInitializer(value);
    }
  }
}

// One run over one model: plan → measure → quantise → rewrite.
class LinearQuantizer {
 public:
  LinearQuantizer(Model& model, Context& context, const LinearOptions& options, PassStats& stats)
      : model_(model),
        context_(context),
        options_(options),
        stats_(stats),
        builder_(model.graph()) {}

  void Run() {
    if (UntransposeInputs(model_)) stats_.changed = true;
    layers_ = FindLinearLayers(model_, context_, stats_);
    if (options_.embeddings) tables_ = FindEmbeddings(model_, context_, stats_);
    Choose();
    if (context_.calibration && !layers_.empty()) {
      statistics_ = CollectInputStatistics(model_, layers_, context_);
    }
    for (size_t i = 0; i < layers_.size(); ++i) EmitLayer(i);
    for (const EmbeddingTable& table : tables_) EmitTable(table);
    RemoveUnused(model_.graph(), std::move(replaced_));
  }

 private:
  // The weight as stored in the file, once for all that read it.
  struct Stored {
    QuantizedWeight weight;
    std::vector<float> rows;                   // what it stands for, [N, K]
    StoredWeight layout1;                      // custom form
    RowsAndScales unpacked{nullptr, nullptr};  // tied: what the embedding gathers from
  };

  void Choose() {
    const LinearForm quantized =
        context_.emit == Emit::kCustom ? LinearForm::kCustom : LinearForm::kStandard;
    choices_.assign(layers_.size(), LinearChoice{.form = quantized});
    nlohmann::json& decisions = context_.decisions["quantize"]["linear"];
    if (decisions.is_object()) {
      Replay(decisions);
      return;
    }
    decisions = nlohmann::json::object();
    if (context_.measure && context_.calibration && !layers_.empty()) {
      std::vector<std::vector<Dims>> shapes;
      const int64_t fixed = context_.calibration->fixed_batch();
      const std::vector<int64_t> batches =
          fixed ? std::vector<int64_t>{fixed} : std::vector<int64_t>{1, 8};
      for (int64_t batch : batches) {
        shapes.push_back(InputShapes(model_, layers_, batch, context_));
      }
      choices_ = ChooseLinearForms(layers_, shapes, context_);
    }
    const auto rounded = [](double ratio) { return std::round(ratio * 100) / 100; };
    for (size_t i = 0; i < layers_.size(); ++i) {
      nlohmann::json& decision = decisions[layers_[i].output->name()];
      decision = {{"form", FormName(choices_[i].form)}, {"speedup", rounded(choices_[i].speedup)}};
      if (choices_[i].over_other > 0) decision["over_other"] = rounded(choices_[i].over_other);
    }
  }

  void Replay(const nlohmann::json& decisions) {
    for (size_t i = 0; i < layers_.size(); ++i) {
      const auto found = decisions.find(layers_[i].output->name());
      if (found == decisions.end()) continue;
      const std::string form = found->value("form", "");
      for (LinearForm known : {LinearForm::kFloat, LinearForm::kCustom, LinearForm::kStandard}) {
        if (form == FormName(known)) choices_[i].form = known;
      }
      choices_[i].speedup = found->value("speedup", 0.0);
      choices_[i].over_other = found->value("over_other", 0.0);
    }
  }

  // One row of the stored weight is one row of an embedding table.
  bool IsTied(const LinearLayer& layer) const {
    return layer.weight_is_rows && layer.weight_factor == 1 &&
           std::any_of(tables_.begin(), tables_.end(),
                       [&](const EmbeddingTable& t) { return t.table == layer.weight; });
  }

  Stored& Store(const LinearLayer& layer, size_t index) {
    for (auto& [first, stored] : stored_) {
      if (first.weight == layer.weight && first.weight_is_rows == layer.weight_is_rows &&
          first.weight_factor == layer.weight_factor) {
        return stored;
      }
    }
    Stored& stored = stored_.emplace_back(layer, Stored{}).second;
    stored.rows = layer.WeightRows();
    const std::vector<float> importance =
        statistics_.empty() ? std::vector<float>{} : statistics_[index].mean_square;
    stored.weight = QuantizeLinearWeight(stored.rows, layer.inputs, layer.outputs, importance,
                                         options_.bound, context_.threads);
    const bool custom = choices_[index].form == LinearForm::kCustom;
    if (custom) stored.layout1 = StoreLayout1(builder_, stored.weight);
    if (IsTied(layer)) {
      builder_.InsertBefore(model_.graph().Nodes().front());  // before the Gather that reads it
      stored.unpacked = custom ? UnpackLayout1(builder_, stored.layout1, stored.weight)
                               : StoreTable(builder_, stored.weight);
    }
    return stored;
  }

  void EmitLayer(size_t index) {
    const LinearLayer& layer = layers_[index];
    const LinearChoice& choice = choices_[index];
    std::string reason;
    if (choice.form == LinearForm::kFloat) {
      reason = fmt::format("int8 measured at ×{:.2f} of float's speed", choice.speedup);
    } else if (!AllFinite(layer.weight->constant()->ToFloats())) {
      reason = "weight has NaN or infinite values";
    }
    if (reason.empty()) {
      Rewrite(layer, choice, index);
    } else {
      stats_.Skip(*layer.product, std::move(reason));
      float_weights_.insert(layer.weight);
    }
  }

  void Rewrite(const LinearLayer& layer, const LinearChoice& choice, size_t index) {
    Stored& stored = Store(layer, index);
    std::vector<float> bias = layer.bias;
    if (options_.bias_correction && !statistics_.empty()) {
      const std::vector<float> correction =
          BiasCorrection(stored.rows, stored.weight, statistics_[index].mean);
      bias.resize(correction.size());
      for (size_t n = 0; n < bias.size(); ++n) bias[n] += correction[n];
    }
    stats_.Done(
        *layer.product,
        fmt::format("int8 linear {}→{} ({})", layer.inputs, layer.outputs, Describe(choice)),
        RelativeError(stored.rows, stored.weight));
    builder_.InsertBefore(layer.bias_add ? layer.bias_add : layer.product);
    if (choice.form == LinearForm::kCustom) {
      EmitLinear(model_, builder_, layer.input, stored.layout1, stored.weight, bias,
                 Activation::kNone, layer.output);
    } else {
      EmitStandardLinear8(builder_, layer.input, stored.unpacked.rows, stored.weight, bias,
                          layer.output);
    }
    Graph& graph = model_.graph();
    for (Node* node : {layer.bias_add, layer.product}) {
      if (!node) continue;
      for (Value* operand : node->inputs()) {
        if (operand && operand->constant()) replaced_.insert(operand);
      }
      graph.RemoveNode(node);
    }
    replaced_.insert(layer.transpose ? layer.transpose->output(0) : layer.weight);
    ++stats_.nodes_removed;
    ++stats_.tensors_rewritten;
    stats_.changed = true;
  }

  void EmitTable(const EmbeddingTable& embedding) {
    const auto skip = [&](std::string_view reason) {
      for (Node* gather : embedding.gathers) stats_.Skip(*gather, std::string(reason));
    };
    if (float_weights_.contains(embedding.table)) {
      return skip("table is shared with a linear layer that stays in float");
    }
    const Tensor& table = *embedding.table->constant();
    RowsAndScales source{nullptr, nullptr};
    double error = -1;
    for (const auto& [layer, stored] : stored_) {
      if (layer.weight == embedding.table && stored.unpacked.rows) source = stored.unpacked;
    }
    const bool tied = source.rows != nullptr;
    if (!tied) {
      const std::vector<float> rows = table.ToFloats();
      if (!AllFinite(rows)) return skip("table has NaN or infinite values");
      const QuantizedWeight weight = QuantizeLinearWeight(rows, table.dims()[1], table.dims()[0],
                                                          {}, PairBound::kNone, context_.threads);
      source = StoreTable(builder_, weight);
      error = RelativeError(rows, weight);
    }
    for (Node* gather : embedding.gathers) {
      stats_.Done(*gather,
                  fmt::format("int8 embedding {}×{}{}", table.dims()[0], table.dims()[1],
                              tied ? ", tied to a linear layer's weight" : ""),
                  error);
      EmitEmbedding(builder_, gather, source);
    }
    replaced_.insert(embedding.table);
    ++stats_.tensors_rewritten;
    stats_.changed = true;
  }

  Model& model_;
  Context& context_;
  const LinearOptions& options_;
  PassStats& stats_;
  Builder builder_;
  std::vector<LinearLayer> layers_;
  std::vector<EmbeddingTable> tables_;
  std::vector<LinearChoice> choices_;
  std::vector<InputStatistics> statistics_;            // empty without data
  std::deque<std::pair<LinearLayer, Stored>> stored_;  // with the layer that came first
  std::set<Value*> float_weights_, replaced_;
};

}  // namespace

void QuantizeLinearLayers(Model& model, Context& context, const LinearOptions& options,
                          PassStats& stats) {
  LinearQuantizer(model, context, options, stats).Run();
}

}  // namespace sparsefuse

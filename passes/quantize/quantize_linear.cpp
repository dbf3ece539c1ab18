#include "passes/quantize/quantize_linear.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "passes/lower/matmul_nbits.h"
#include "passes/lower/unpack_filters.h"
#include "passes/quantize/embedding.h"
#include "passes/quantize/gate_share.h"
#include "passes/quantize/input_shapes.h"
#include "passes/quantize/linear.h"
#include "passes/quantize/linear_forms.h"
#include "passes/quantize/linear_report.h"
#include "passes/quantize/linear_store.h"
#include "passes/quantize/linear_weights.h"
#include "passes/quantize/rounding.h"

namespace sparsefuse {
namespace {

constexpr double kFewestZeroBlocks = 0.1;  // share from which on an index may pay

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
    ReportQuantized();
    layers_ = FindLinearLayers(model_, context_, stats_);
    RemoveNonFinite();
    if (options_.embeddings) tables_ = FindEmbeddings(model_, context_, stats_);
    Plan();
    quantized_ = QuantizeInSequence(model_, layers_, plans_, options_.sequence, context_);
    for (size_t i = 0; i < layers_.size(); ++i) EmitLayer(i);
    for (const EmbeddingTable& table : tables_) EmitTable(table);
    if (total_.parameters > 0) stats_.findings.push_back(Totals(total_));
    RemoveUnused(model_.graph(), std::move(replaced_));
    if (!gated_.empty()) {
      stats_.findings.push_back(
          ChooseGateShare(model_, gated_, options_.gate_share, options_.max_flips, context_));
    }
  }

 private:
  // Products that are quantised in the model that came in.
  void ReportQuantized() {
    for (Node* node : model_.graph().TopologicalOrder()) {
      const bool ours = node->domain() == kOperatorDomain && node->op() != kUnpackFilters;
      const bool theirs = node->op() == "MatMulInteger" || node->op() == "QLinearMatMul" ||
                          node->op() == "MatMulNBits" || node->op() == "MatMulIntegerToFloat" ||
                          node->op() == "DynamicQuantizeMatMul";
      if (ours || theirs) stats_.Skip(*node, "quantised already");
    }
  }

  void RemoveNonFinite() {
    std::erase_if(layers_, [&](const LinearLayer& layer) {
      if (AllFinite(layer.weight->constant()->ToFloats()) && AllFinite(layer.bias)) return false;
      if (options_.fail_on_nonfinite) {
        throw UserError(ErrorCode::kModel, "weight has NaN or infinite values",
                        "\"on_nonfinite\": \"skip\" leaves such layers in float")
            .At(fmt::format("tensor \"{}\"", Printable(layer.weight->name())));
      }
      stats_.Skip(*layer.product, "weight has NaN or infinite values");
      float_weights_.insert(layer.weight);
      return true;
    });
  }

  void Plan() {
    for (size_t i = 0; i < layers_.size(); ++i) {
      const LinearLayer& layer = layers_[i];
      size_t first = 0;
      while (layers_[first].weight != layer.weight ||
             layers_[first].weight_is_rows != layer.weight_is_rows ||
             layers_[first].weight_factor != layer.weight_factor) {
        ++first;
      }
      same_as_.push_back(first);
      tied_.push_back(IsTied(layer));
    }
    WidthOptions widths = options_.widths;
    widths.width = context_.emit == Emit::kCustom ? options_.scale_inputs : options_.block;
    widths_ = ChooseWidths(model_, layers_, same_as_, tied_, widths, context_);
    for (size_t i = 0; i < layers_.size(); ++i) {
      const LinearLayer& layer = layers_[i];
      WeightForm kind{.encoding = widths_[i].encoding};
      const std::vector<bool> zero =
          ZeroBlocks(std::span<const float>(layer.WeightRows()), layer.inputs, layer.outputs);
      const auto zeros = static_cast<double>(std::count(zero.begin(), zero.end(), true));
      if (zeros >= kFewestZeroBlocks * static_cast<double>(zero.size()) && !tied_[i]) {
        kind.density = std::max(StoredDensity(zero, layer.inputs, layer.outputs), 1e-3);
      }
      kinds_.push_back(kind);
    }
    Choose();
    for (size_t i = 0; i < layers_.size(); ++i) plans_.push_back(PlanOf(i));
    // Coarse weights lose enough for later ones to make up for.
    bool coarse = false;
    for (LayerPlan& plan : plans_) {
      coarse = coarse || (plan.quantized && plan.rule.encoding != Encoding::kInt8);
      plan.anchored = plan.anchored && coarse;
    }
  }

  LayerPlan PlanOf(size_t index) const {
    const LinearLayer& layer = layers_[index];
    const LinearChoice& choice = choices_[index];
    LayerPlan plan{.quantized = choice.form != LinearForm::kFloat,
                   .same_as = same_as_[index],
                   .rule = {.encoding = widths_[index].encoding,
                            .bound = options_.bound,
                            .share8 = options_.share8},
                   .width = layer.inputs,
                   .feedback = options_.feedback};
    if (plan.rule.encoding != Encoding::kInt8 && !choice.sparse) {
      const int64_t width =
          choice.form == LinearForm::kStandard ? options_.block : options_.scale_inputs;
      plan.width = choice.form == LinearForm::kStandard ? width : std::min(width, layer.inputs);
    }
    const bool shared = std::count(same_as_.begin(), same_as_.end(), same_as_[index]) > 1;
    if (tied_[index] && plan.feedback != FeedbackUse::kNever) {
      plan.feedback = FeedbackUse::kNever;
      plan.no_feedback = "its rows are an embedding's, too";
    } else if (plan.feedback == FeedbackUse::kNever) {
      plan.no_feedback = "turned off";
    }
    plan.gated = IsNested(plan.rule.encoding) && options_.gate_share > 0 && !shared;
    plan.anchored =
        !shared && plan.feedback != FeedbackUse::kNever && options_.sequence.student_inputs;
    plan.counts_zeros =
        choice.form == LinearForm::kCustom && !choice.sparse && !IsNested(plan.rule.encoding);
    plan.smooth = options_.smooth && choice.form == LinearForm::kCustom && !shared && !tied_[index];
    return plan;
  }

  void Choose() {
    for (const WeightForm& kind : kinds_) choices_.push_back(UnmeasuredChoice(kind, context_.emit));
    nlohmann::json& decisions = context_.decisions["quantize"]["linear"];
    if (decisions.is_object()) {
      Replay(decisions);
    } else {
      decisions = nlohmann::json::object();
      if (context_.measure && context_.calibration && !layers_.empty()) Measure();
    }
    for (size_t i = 0; i < layers_.size(); ++i) {
      const LinearChoice& first = choices_[same_as_[i]];  // a weight is stored in one form
      choices_[i].form = first.form;
      choices_[i].sparse = first.sparse;
      decisions[layers_[i].output->name()] = ToJson(choices_[i]);
    }
  }

  void Measure() {
    std::vector<std::vector<Dims>> shapes;
    const int64_t fixed = context_.calibration->fixed_batch();
    const std::vector<int64_t> batches =
        fixed ? std::vector<int64_t>{fixed} : std::vector<int64_t>{1, 8};
    for (int64_t batch : batches) {
      shapes.push_back(InputShapes(model_, layers_, batch, context_));
    }
    choices_ = ChooseLinearForms(layers_, kinds_, shapes, context_);
  }

  void Replay(const nlohmann::json& decisions) {
    for (size_t i = 0; i < layers_.size(); ++i) {
      const auto found = decisions.find(layers_[i].output->name());
      if (found != decisions.end()) choices_[i] = ReadChoice(*found, choices_[i]);
    }
  }

  // One row of the stored weight is one row of an embedding table.
  bool IsTied(const LinearLayer& layer) const {
    return layer.weight_is_rows && layer.weight_factor == 1 &&
           std::any_of(tables_.begin(), tables_.end(),
                       [&](const EmbeddingTable& t) { return t.table == layer.weight; });
  }

  const StoredLinear& Store(size_t index) {
    const size_t first = same_as_[index];
    const auto found = stored_.find(first);
    if (found != stored_.end()) return found->second;
    StoredLinear stored = StoreLinear(model_, builder_, layers_[first], quantized_[first],
                                      choices_[first], tied_[first]);
    total_.Add(stored.bytes);
    return stored_.emplace(first, std::move(stored)).first->second;
  }

  void EmitLayer(size_t index) {
    const LinearLayer& layer = layers_[index];
    const LinearChoice& choice = choices_[index];
    if (choice.form == LinearForm::kFloat) {
      stats_.Skip(*layer.product,
                  fmt::format("int8 measured at ×{:.2f} of float's speed", choice.speedup));
      float_weights_.insert(layer.weight);
      return;
    }
    const StoredLinear& stored = Store(index);
    const QuantizedLayer& own = quantized_[index];
    const QuantizedLayer& quantized = quantized_[same_as_[index]];
    std::vector<float> bias = layer.bias;
    if (!own.bias_change.empty()) {
      bias.resize(own.bias_change.size());
      for (size_t n = 0; n < bias.size(); ++n) bias[n] += own.bias_change[n];
    }
    stats_.Done(*layer.product,
                Describe({.layer = &layer,
                          .choice = &choice,
                          .quantized = &quantized,
                          .bytes = stored.bytes,
                          .stored_quads = stored.stored_quads,
                          .zero_inputs = own.zero_inputs,
                          .int8_reason = widths_[index].reason}),
                std::sqrt(quantized.coded.error));
    builder_.InsertBefore(layer.bias_add ? layer.bias_add : layer.product);
    if (choice.form == LinearForm::kCustom) {
      EmitLinear(model_, builder_, layer.input, stored.layout1, stored.weight, bias,
                 Activation::kNone, layer.output);
      if (own.zero_inputs >= kFewestZeroInputs) {
        SetZeroInputs(*layer.output->producer(), own.zero_inputs);
      }
      if (!quantized.gate.gate.empty()) {
        gated_.push_back({layer.output->name(), &quantized.gate});
      }
    } else if (quantized.coded.encoding == Encoding::kInt4) {
      EmitMatMulNBits(model_, builder_, layer.input, stored.blocked, bias, layer.output);
    } else {
      EmitStandardLinear8(builder_, layer.input, stored.unpacked.rows, stored.weight, bias,
                          layer.output);
    }
    RemoveProduct(layer);
  }

  void RemoveProduct(const LinearLayer& layer) {
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
    for (const auto& [first, stored] : stored_) {
      if (layers_[first].weight == embedding.table && stored.unpacked.rows) {
        source = stored.unpacked;
      }
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
  std::vector<size_t> same_as_;  // the first layer with the same weight
  std::vector<bool> tied_;
  std::vector<LayerWidth> widths_;
  std::vector<WeightForm> kinds_;
  std::vector<LinearChoice> choices_;
  std::vector<LayerPlan> plans_;
  std::vector<QuantizedLayer> quantized_;
  std::map<size_t, StoredLinear> stored_;  // by the first layer with the weight
  std::vector<GatedLayer> gated_;
  StoredBytes total_;
  std::set<Value*> float_weights_, replaced_;
};

}  // namespace

void QuantizeLinearLayers(Model& model, Context& context, const LinearOptions& options,
                          PassStats& stats) {
  LinearQuantizer(model, context, options, stats).Run();
}

}  // namespace sparsefuse

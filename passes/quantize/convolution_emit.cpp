#include "passes/quantize/convolution_emit.h"

#include <algorithm>

#include "passes/lower/builder.h"
#include "passes/lower/unpack_filters.h"

namespace sparsefuse {
namespace {

constexpr int64_t kChannelMultiple = 4;

int64_t RoundUp(int64_t n, int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }

// Attributes that the operators of a plan can have.
Attributes CopyAttributes(const Node& node) {
  Attributes copies;
  for (const Attribute& attribute : node.attributes()) {
    std::visit(
        [&](const auto& data) {
          using T = std::decay_t<decltype(data)>;
          if constexpr (std::is_same_v<T, int64_t> || std::is_same_v<T, float> ||
                        std::is_same_v<T, std::string> || std::is_same_v<T, std::vector<int64_t>> ||
                        std::is_same_v<T, std::vector<float>>) {
            copies.emplace_back(attribute.name, data);
          } else {
            SF_CHECK(false, "attribute {} of {}", attribute.name, node.op());
          }
        },
        attribute.data);
  }
  return copies;
}

class Emitter {
 public:
  Emitter(Model& model, const ConvolutionPlan& plan, const std::vector<ActivationCode>& codes,
          FilterCache& filters, const EmitOptions& options)
      : model_(model),
        graph_(model.graph()),
        plan_(plan),
        group_codes_(codes),
        filters_(filters),
        options_(options),
        builder_(graph_) {
    for (const CodedNode& node : plan.nodes) readers_[node.node] = &node;
  }

  Emission Run() {
    const auto before = static_cast<int64_t>(graph_.node_count());
    for (const CodedNode& node : plan_.nodes) {
      builder_.InsertBefore(node.node);
      switch (node.kind) {
        case CodedKind::kProduct:
          EmitProduct(node);
          break;
        case CodedKind::kArithmetic:
          EmitArithmetic(node);
          break;
        case CodedKind::kMove:
          EmitMove(node);
          break;
      }
    }
    emission_.nodes_added = static_cast<int64_t>(graph_.node_count()) - before;
    RemoveOld();
    emission_.nodes_removed =
        before + emission_.nodes_added - static_cast<int64_t>(graph_.node_count());
    return std::move(emission_);
  }

 private:
  // A coded tensor in the new graph: its codes, and floats made of them once something reads them.
  struct Coded {
    Value* codes = nullptr;
    Value* real = nullptr;
  };

  const ActivationCode& CodeOf(const Value* value) const {
    return group_codes_[plan_.group.at(value)];
  }
  Value* Scale(const ActivationCode& code) { return builder_.Float(code.scale); }
  Value* ZeroPoint(const ActivationCode& code) {
    return builder_.Constant(Tensor::Scalar(code.zero_point));
  }

  Value* Encode(Value* real, const ActivationCode& code) {
    return builder_.Op("QuantizeLinear", {real, Scale(code), ZeroPoint(code)});
  }
  Value* Decode(Value* codes, const ActivationCode& code) {
    return builder_.Op("DequantizeLinear", {codes, Scale(code), ZeroPoint(code)});
  }

  // A boundary is coded in front of its first reader.
  Value* Codes(Value* value) {
    Coded& coded = coded_[value];
    if (!coded.codes) {
      SF_CHECK(plan_.boundaries.contains(value), "{} is not coded yet", value->name());
      coded.codes = Encode(value, CodeOf(value));
    }
    return coded.codes;
  }

  Value* Real(Value* value) {
    Codes(value);
    Coded& coded = coded_[value];
    if (!coded.real) coded.real = Decode(coded.codes, CodeOf(value));
    return coded.real;
  }

  // Whether an operator that stays in float, or the graph's outputs, read this tensor.
  bool IsReadAsFloat(const Value& value) const {
    if (value.is_graph_output()) return true;
    return std::any_of(value.uses().begin(), value.uses().end(), [&](const Use& use) {
      return !readers_.contains(use.node) && !IsAbsorbing(*use.node);
    });
  }

  bool IsAbsorbing(const Node& node) const {
    const auto found = plan_.absorbed.find(node.input(0));
    return found != plan_.absorbed.end() && found->second.node == &node;
  }

  // `codes` stands for `value`, and for the Relu's output where that disappears.
  void SetCodes(Value* value, Value* codes) {
    for (auto next = plan_.absorbed.find(value); next != plan_.absorbed.end();
         next = plan_.absorbed.find(value)) {
      coded_[value].codes = codes;
      value = next->second.output;
    }
    Coded& coded = coded_[value];
    coded.codes = codes;
    if (!IsReadAsFloat(*value)) return;
    const ActivationCode& code = CodeOf(value);
    if (value->is_graph_output()) {
      builder_.OpAs(value, "DequantizeLinear", {codes, Scale(code), ZeroPoint(code)});
      coded.real = value;
    } else {
      coded.real = Decode(codes, code);
      graph_.ReplaceUses(value, coded.real);
    }
  }

  void EmitProduct(const CodedNode& product) {
    const Node& node = *product.node;
    Value* const input = product.inputs[0];
    const bool pad = options_.pad_channels && CanPadChannels(plan_, product);
    const int64_t own = FilterCache::Channels(node);
    const int64_t channels = pad ? RoundUp(own, kChannelMultiple) : own;
    std::vector<Value*> inputs = {pad ? PaddedReal(input, node, channels - own) : Real(input)};
    EmitWeights(node, channels, CodeOf(input).scale, inputs);
    Attributes attributes = CopyAttributes(node);
    if (node.Is("Gemm")) {
      attributes.clear();
      attributes.emplace_back("transB", int64_t{1});
    }
    emission_.products.push_back({KeyOf(node), ""});
    if (!product.coded_output) {
      builder_.OpAs(product.output, node.op(), inputs, std::move(attributes));
      emission_.products.back().output = product.output->name();
      return;
    }
    Value* output = builder_.Op(node.op(), inputs, std::move(attributes));
    emission_.products.back().output = output->name();
    SetCodes(product.output, Encode(output, CodeOf(product.output)));
  }

  // `value` with channels added that read as zero.
  Value* PaddedReal(Value* value, const Node& product, int64_t added) {
    const ActivationCode& code = CodeOf(value);
    std::vector<int64_t> pads(2 * product.constant_input(1)->dims().size());
    pads[pads.size() / 2 + 1] = added;
    Value* padded = builder_.Op("Pad", {Codes(value), builder_.Ints(pads), ZeroPoint(code)});
    return Decode(padded, code);
  }

  // Appends the dequantised weight and, where there is one, the bias. Zero points of weights are
  // spelt out: without them ONNX Runtime does not fuse Gemm.
  void EmitWeights(const Node& node, int64_t channels, float input_scale,
                   std::vector<Value*>& inputs) {
    const std::vector<float> real_bias = Bias(node);
    QuantizedFilters filters = filters_.Get(node, channels);
    if (filters.packed && !HasRoomForBias(real_bias, input_scale, filters.scales)) {
      filters = filters_.GetInt8(node, channels);
    }
    const std::vector<float> rows = FilterCache::Rows(node, channels);
    const auto count = static_cast<int64_t>(filters.scales.size());
    const std::vector<int32_t> bias =
        QuantizeBias(real_bias, input_scale, rows, filters_.BoundOf(node), filters);
    Dims dims = {count, static_cast<int64_t>(filters.codes.size()) / count};
    if (node.Is("Conv")) {
      dims = node.constant_input(1)->dims();
      dims[1] = channels;
    }
    const auto on_axis_0 = [] {
      Attributes attributes;
      attributes.emplace_back("axis", int64_t{0});
      return attributes;
    };
    inputs.push_back(builder_.Op(
        "DequantizeLinear",
        {Codes(node.input(1), filters, dims, channels),
         builder_.Constant(Tensor::Of({count}, filters.scales)),
         builder_.Constant(Tensor::Of({count}, std::vector<int8_t>(filters.scales.size())))},
        on_axis_0()));
    if (bias.empty()) return;
    std::vector<float> scales;
    for (float scale : filters.scales) scales.push_back(input_scale * scale);
    inputs.push_back(builder_.Op("DequantizeLinear",
                                 {builder_.Constant(Tensor::Of({count}, bias)),
                                  builder_.Constant(Tensor::Of({count}, scales))},
                                 on_axis_0()));
  }

  // The node's own bias plus its correction; empty if it has neither.
  std::vector<float> Bias(const Node& node) const {
    const Tensor* own = node.constant_input(2);
    std::vector<float> bias = own ? own->ToFloats() : std::vector<float>{};
    const auto found = options_.corrections.find(KeyOf(node));
    if (found == options_.corrections.end()) return bias;
    bias.resize(found->second.size());
    for (size_t m = 0; m < bias.size(); ++m) bias[m] += found->second[m];
    return bias;
  }

  Value* Codes(const Value* weight, const QuantizedFilters& filters, const Dims& dims,
               int64_t channels) {
    if (filters.packed) {
      return UnpackedFilters(builder_, model_, filters.packed->nibbles, filters.packed->multipliers,
                             dims);
    }
    return StoredCodes(
        weight, Tensor::Of(dims, ToStorageOrder(std::span<const int8_t>(filters.codes), dims[0],
                                                channels)));
  }

  // Convolutions that share a weight share its codes.
  Value* StoredCodes(const Value* weight, const Tensor& codes) {
    for (const auto& [tensor, value] : stored_[weight]) {
      if (tensor.dims() == codes.dims() && std::ranges::equal(tensor.bytes(), codes.bytes())) {
        return value;
      }
    }
    Value* value = builder_.Constant(codes);
    stored_[weight].emplace_back(codes, value);
    return value;
  }

  void EmitArithmetic(const CodedNode& node) {
    std::vector<Value*> inputs;
    for (Value* input : node.inputs) inputs.push_back(Real(input));
    Value* output = builder_.Op(node.node->op(), inputs, CopyAttributes(*node.node));
    SetCodes(node.output, Encode(output, CodeOf(node.output)));
  }

  void EmitMove(const CodedNode& node) {
    std::vector<Value*> inputs = node.inputs;
    const size_t data = node.node->Is("Concat") ? inputs.size() : 1;
    for (size_t i = 0; i < data; ++i) inputs[i] = Codes(inputs[i]);
    if (node.node->Is("Pad")) {
      inputs.resize(std::max<size_t>(inputs.size(), 3));
      inputs[2] = ZeroPoint(CodeOf(node.output));
    }
    SetCodes(node.output, builder_.Op(node.node->op(), inputs, CopyAttributes(*node.node)));
  }

  void RemoveOld() {
    for (auto it = plan_.nodes.rbegin(); it != plan_.nodes.rend(); ++it) {
      const auto absorbed = plan_.absorbed.find(it->output);
      if (absorbed != plan_.absorbed.end()) RemoveNode(absorbed->second.node);
      RemoveNode(it->node);
    }
    for (Value* value : constants_) RemoveConstant(value);
  }

  void RemoveNode(Node* node) {
    for (Value* input : node->inputs()) {
      if (input && input->constant()) constants_.insert(input);
    }
    graph_.RemoveNode(node);
  }

  void RemoveConstant(Value* value) {
    if (!value->uses().empty() || value->is_graph_output() || value->is_graph_input()) return;
    if (Node* producer = value->producer()) {
      graph_.RemoveNode(producer);
    } else {
      graph_.RemoveInitializer(value);
    }
  }

  Model& model_;
  Graph& graph_;
  const ConvolutionPlan& plan_;
  const std::vector<ActivationCode>& group_codes_;
  FilterCache& filters_;
  const EmitOptions& options_;
  Builder builder_;
  Emission emission_;
  std::map<const Node*, const CodedNode*> readers_;
  std::map<const Value*, Coded> coded_;
  std::map<const Value*, std::vector<std::pair<Tensor, Value*>>> stored_;
  std::set<Value*> constants_;  // that removed nodes read
};

}  // namespace

Emission EmitConvolutions(Model& model, const ConvolutionPlan& plan,
                          const std::vector<ActivationCode>& codes, FilterCache& filters,
                          const EmitOptions& options) {
  return Emitter(model, plan, codes, filters, options).Run();
}

}  // namespace sparsefuse

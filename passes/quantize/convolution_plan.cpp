#include "passes/quantize/convolution_plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <numeric>
#include <string_view>

#include "passes/quantize/convolution_weights.h"
#include "passes/quantize/rounding.h"

namespace sparsefuse {
namespace {

template <size_t N>
bool IsOneOf(const Node& node, const std::array<std::string_view, N>& ops) {
  return node.domain().empty() && std::find(ops.begin(), ops.end(), node.op()) != ops.end();
}

// Change the layout, not the values.
bool IsLayout(const Node& node) {
  static constexpr std::array<std::string_view, 6> kOps = {"Reshape", "Flatten",   "Transpose",
                                                           "Squeeze", "Unsqueeze", "Identity"};
  return IsOneOf(node, kOps);
}

bool IsMove(const Node& node) {
  if (IsLayout(node) || node.Is("Slice")) return true;
  if (node.Is("MaxPool")) return !node.output(1);
  if (node.Is("Resize")) {
    return node.GetString("mode", "nearest") == "nearest" &&
           node.GetString("coordinate_transformation_mode", "half_pixel") != "tf_crop_and_resize";
  }
  if (node.Is("Pad")) {
    if (node.GetString("mode", "constant") != "constant") return true;
    if (!node.input(2)) return true;
    const Tensor* value = node.constant_input(2);
    return value && value->dtype() == DType::kFloat && value->ToFloats() == std::vector<float>{0};
  }
  return false;
}

bool IsPooling(const Node& node) { return node.Is("AveragePool") || node.Is("GlobalAveragePool"); }

bool IsArithmetic(const Node& node) {
  static constexpr std::array<std::string_view, 5> kOps = {"Add", "Mul", "Concat", "Sigmoid",
                                                           "LeakyRelu"};
  return IsPooling(node) || IsOneOf(node, kOps);
}

// Relu, or Clip with a constant lower end of 0 and an upper end that is constant or none.
bool IsRelu(const Node& node) {
  if (node.Is("Relu")) return true;
  if (!node.Is("Clip")) return false;
  const Tensor* low = node.constant_input(1);
  if (!low || low->dtype() != DType::kFloat || low->ToFloats() != std::vector<float>{0}) {
    return false;
  }
  return !node.input(2) || node.constant_input(2);
}

bool IsConstantFloat(const Tensor* tensor) { return tensor && tensor->dtype() == DType::kFloat; }

std::string WhyNoWeight(const Node& node) {
  const Value* weight = node.input(1);
  const Tensor* tensor = node.constant_input(1);
  if (!tensor) {
    const Node* producer = weight ? weight->producer() : nullptr;
    return producer && producer->Is("DequantizeLinear") ? "already quantised"
                                                        : "weight is not constant";
  }
  if (tensor->dtype() != DType::kFloat) {
    return fmt::format("weight is {}, only float is supported", DTypeName(tensor->dtype()));
  }
  if (tensor->size() == 0) return "weight is empty";
  if (node.input(2) && !IsConstantFloat(node.constant_input(2))) return "bias is not constant";
  return "";
}

// A Gemm that can be a product: X·W + b with a bias of one value an output.
bool IsPlainGemm(const Node& node, const Context& context) {
  if (!node.Is("Gemm") || context.Excluded(node) || !WhyNoWeight(node).empty()) return false;
  if (node.GetInt("transA", 0) != 0 || node.GetFloat("alpha", 1) != 1 ||
      node.GetFloat("beta", 1) != 1) {
    return false;
  }
  const Dims& dims = node.constant_input(1)->dims();
  const bool rows = node.GetInt("transB", 0) != 0;
  if (dims.size() != 2 || dims[rows ? 1 : 0] > kMaxReduction) return false;
  const Tensor* bias = node.constant_input(2);
  return !bias || (bias->size() == dims[rows ? 0 : 1] && bias->dims().back() == bias->size());
}

class Planner {
 public:
  Planner(Graph& graph, const Context& context, const std::set<std::string>& keep_float)
      : context_(context), keep_float_(keep_float), order_(graph.TopologicalOrder()) {}

  ConvolutionPlan Plan() {
    do {
      MarkForward();
    } while (BanUseless());
    RaiseBoundaries();
    for (Node* node : order_) {
      const auto kind = kinds_.find(node);
      if (kind == kinds_.end()) continue;
      Value* output = node->output(0);
      plan_.nodes.push_back(
          {node, kind->second, node->inputs(), output, !float_outputs_.contains(node)});
    }
    Group();
    return std::move(plan_);
  }

 private:
  bool IsCoded(const Value* value) const { return coded_.contains(value); }

  bool MayCode(const Node& node) const {
    return !banned_.contains(&node) && !keep_float_.contains(KeyOf(node)) &&
           !context_.Excluded(node) && node.output(0);
  }

  void MarkForward() {
    kinds_.clear();
    coded_.clear();
    relu_of_.clear();
    plan_.absorbed.clear();
    for (Node* node : order_) {
      if (IsRelu(*node)) {
        if (Value* root = AbsorbingRoot(*node)) {
          plan_.absorbed[node->input(0)] = {node, node->output(0)};
          coded_.insert(node->output(0));
          relu_of_[root] = node->output(0);
        }
        continue;
      }
      if (!MayCode(*node)) continue;
      if (node->Is("Conv")) {
        if (WhyFloat(*node, context_).empty()) Code(node, CodedKind::kProduct);
      } else if (IsPlainGemm(*node, context_)) {
        if (IsCoded(node->input(0))) Code(node, CodedKind::kProduct);
      } else if (IsMove(*node)) {
        if (IsCoded(node->input(0))) Code(node, CodedKind::kMove);
      } else if (IsArithmetic(*node)) {
        const auto& inputs = node->inputs();
        if (std::all_of(inputs.begin(), inputs.end(), [&](Value* v) { return IsCoded(v); })) {
          Code(node, CodedKind::kArithmetic);
        }
      }
    }
  }

  void Code(Node* node, CodedKind kind) {
    kinds_[node] = kind;
    if (!float_outputs_.contains(node)) coded_.insert(node->output(0));
  }

  // The coded tensor whose quantisation does this Relu's work, directly or through MaxPool (they
  // commute), if nothing else reads what lies between. Null if there is none.
  Value* AbsorbingRoot(const Node& relu) const {
    Value* value = relu.input(0);
    while (value && IsCoded(value) && value->has_single_use()) {
      Node* producer = value->producer();
      if (!producer || plan_.absorbed.contains(value)) return nullptr;
      if (producer->Is("MaxPool")) {
        value = producer->input(0);
        continue;
      }
      const auto kind = kinds_.find(producer);
      return kind != kinds_.end() && kind->second != CodedKind::kMove ? value : nullptr;
    }
    return nullptr;
  }

  // Arithmetic and Gemm outputs that no product reads, even indirectly, would be coded only to be
  // decoded: they stay float. True if any changed. Pooling is kept: it reads many codes and gives
  // few; so is a Gemm whose Relu can disappear.
  bool BanUseless() {
    std::set<const Value*> useful;
    bool changed = false;
    for (auto it = order_.rbegin(); it != order_.rend(); ++it) {
      Node* node = *it;
      const auto kind = kinds_.find(node);
      if (kind == kinds_.end()) {
        const auto absorbed =
            node->input(0) ? plan_.absorbed.find(node->input(0)) : plan_.absorbed.end();
        if (absorbed != plan_.absorbed.end() && useful.contains(absorbed->second.output)) {
          useful.insert(node->input(0));
        }
        continue;
      }
      const bool output_useful = useful.contains(node->output(0));
      const bool product = kind->second == CodedKind::kProduct;
      if (product || output_useful || IsPooling(*node)) {
        for (Value* input : node->inputs()) useful.insert(input);
      }
      if (output_useful || float_outputs_.contains(node)) continue;
      if (node->Is("Gemm") && !plan_.absorbed.contains(node->output(0))) {
        changed |= float_outputs_.insert(node).second;
      } else if (kind->second == CodedKind::kArithmetic && !IsPooling(*node)) {
        changed |= banned_.insert(node).second;
      }
    }
    return changed;
  }

  // Products whose input is made in float code it themselves; layout changes in front of them are
  // cheaper on codes.
  void RaiseBoundaries() {
    for (Node* node : order_) {
      const auto kind = kinds_.find(node);
      if (kind == kinds_.end() || kind->second != CodedKind::kProduct) continue;
      Value* value = node->input(0);
      while (!IsCoded(value) && CanRaise(*value)) {
        kinds_[value->producer()] = CodedKind::kMove;
        coded_.insert(value);
        value = value->producer()->input(0);
      }
      if (coded_.insert(value).second) plan_.boundaries.insert(value);
    }
  }

  bool CanRaise(const Value& value) const {
    Node* producer = value.producer();
    if (!producer || !(IsLayout(*producer) || producer->Is("Pad")) || !IsMove(*producer)) {
      return false;
    }
    if (!MayCode(*producer) || value.is_graph_output() || producer->input(0)->constant()) {
      return false;
    }
    return std::all_of(value.uses().begin(), value.uses().end(),
                       [&](const Use& use) { return use.index == 0 && kinds_.contains(use.node); });
  }

  // Union-find over coded tensors: equal scale and zero point.
  size_t Find(size_t i) {
    while (parent_[i] != i) i = parent_[i] = parent_[parent_[i]];
    return i;
  }

  size_t Index(const Value* value) {
    const auto [it, fresh] = index_.try_emplace(value, parent_.size());
    if (fresh) {
      parent_.push_back(parent_.size());
      nonnegative_.push_back(false);
      has_relu_.push_back(false);
    }
    return it->second;
  }

  void Join(const Value* a, const Value* b) {
    const size_t i = Find(Index(a)), j = Find(Index(b));
    if (i == j) return;
    parent_[j] = i;
    nonnegative_[i] = nonnegative_[i] && nonnegative_[j];
    has_relu_[i] = has_relu_[i] || has_relu_[j];
  }

  // `value`, not in any group yet, goes with `from`.
  void Extend(const Value* from, const Value* value) { parent_[Index(value)] = Find(Index(from)); }

  // A new range of its own; `measured` is the float tensor that it is read from.
  void Start(Value* value, bool nonnegative) {
    const auto relu = relu_of_.find(value);
    const bool absorbs = relu != relu_of_.end();
    const size_t i = Index(value);
    has_relu_[i] = absorbs;
    nonnegative_[i] = nonnegative || absorbs;
    measured_.emplace_back(value, absorbs ? relu->second : value);
  }

  // Equal scales make Concat a copy. Not where a Relu has disappeared (its zero point must be 0)
  // and another input may be negative.
  bool CanJoin(const Node& concat) {
    bool relu = false, nonnegative = true;
    for (const Value* input : concat.inputs()) {
      const size_t i = Find(Index(input));
      relu = relu || has_relu_[i];
      nonnegative = nonnegative && nonnegative_[i];
    }
    return (!relu || nonnegative) && !relu_of_.contains(concat.output(0));
  }

  void Group() {
    for (Node* node : order_) {
      for (Value* input : node->inputs()) {
        if (input && plan_.boundaries.contains(input) && !index_.contains(input)) {
          Start(input, false);
        }
      }
      const auto absorbed =
          IsRelu(*node) ? plan_.absorbed.find(node->input(0)) : plan_.absorbed.end();
      if (absorbed != plan_.absorbed.end()) Extend(absorbed->first, absorbed->second.output);
      if (kinds_.contains(node) && IsCoded(node->output(0))) GroupOutput(*node);
    }
    std::map<size_t, size_t> numbers;
    for (const auto& [value, index] : index_) {
      const size_t number = numbers.try_emplace(Find(index), numbers.size()).first->second;
      plan_.group[value] = number;
    }
    plan_.measured.resize(numbers.size());
    for (const auto& [value, source] : measured_) {
      plan_.measured[plan_.group.at(value)].push_back(source);
    }
  }

  void GroupOutput(Node& node) {
    Value* output = node.output(0);
    if (kinds_.at(&node) == CodedKind::kMove) {
      Extend(node.input(0), output);
    } else if (node.Is("Concat") && CanJoin(node)) {
      Extend(node.input(0), output);
      for (Value* input : node.inputs()) Join(input, output);
      SetKind(&node, CodedKind::kMove);
    } else {
      const bool nonnegative =
          node.Is("Sigmoid") || (IsPooling(node) && nonnegative_[Find(Index(node.input(0)))]);
      Start(output, nonnegative);
    }
  }

  void SetKind(const Node* node, CodedKind kind) {
    for (CodedNode& coded : plan_.nodes) {
      if (coded.node == node) coded.kind = kind;
    }
  }

  const Context& context_;
  const std::set<std::string>& keep_float_;
  const std::vector<Node*> order_;
  ConvolutionPlan plan_;
  std::map<const Node*, CodedKind> kinds_;
  std::set<const Value*> coded_;
  std::set<const Node*> banned_, float_outputs_;
  std::map<const Value*, Value*> relu_of_;  // tensor that absorbs a Relu → the Relu's output
  std::vector<size_t> parent_;
  std::vector<bool> nonnegative_, has_relu_;  // of the group that index i leads
  std::map<const Value*, size_t> index_;
  std::vector<std::pair<const Value*, Value*>> measured_;
};

}  // namespace

std::string KeyOf(const Node& node) {
  return node.output(0) ? node.output(0)->name() : node.name();
}

bool HasFiniteWeights(const Node& node) {
  for (size_t i : {1, 2}) {
    const Tensor* tensor = node.constant_input(i);
    if (tensor && IsFloating(tensor->dtype()) && !AllFinite(tensor->ToFloats())) return false;
  }
  return true;
}

std::string WhyFloat(const Node& node, const Context& context) {
  if (context.Excluded(node)) return "excluded";
  if (std::string reason = WhyNoWeight(node); !reason.empty()) return reason;
  const Tensor& weight = *node.constant_input(1);
  if (weight.rank() < 3) return fmt::format("weight has rank {}, not 3 or more", weight.rank());
  if (const Tensor* bias = node.constant_input(2); bias && bias->size() != weight.dims()[0]) {
    return fmt::format("bias has {} values for {} filters", bias->size(), weight.dims()[0]);
  }
  const int64_t products = weight.size() / weight.dims()[0];
  if (products > kMaxReduction) {
    return fmt::format("{} products in one sum, more than {} could overflow", products,
                       kMaxReduction);
  }
  return "";
}

ConvolutionPlan PlanConvolutions(Graph& graph, const Context& context,
                                 const std::set<std::string>& keep_float) {
  return Planner(graph, context, keep_float).Plan();
}

std::set<std::string> EndProducts(Graph& graph, const Context& context) {
  std::vector<std::string> products;
  for (const CodedNode& coded : PlanConvolutions(graph, context).nodes) {
    if (coded.kind == CodedKind::kProduct) products.push_back(KeyOf(*coded.node));
  }
  if (products.empty()) return {};
  return {products.front(), products.back()};
}

bool CanPadChannels(const ConvolutionPlan& plan, const CodedNode& product) {
  return product.node->Is("Conv") && product.node->GetInt("group", 1) == 1 &&
         product.node->constant_input(1)->dims()[1] % 4 == 3 &&
         plan.boundaries.contains(product.inputs[0]);
}

}  // namespace sparsefuse

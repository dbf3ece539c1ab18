// Computes nodes whose inputs are all known, once and by ONNX Runtime itself, and stores the
// results as initializers. Exact up to rounding, and never a larger file. What stays:
//   * results larger than the constants they are made from (a mask from ConstantOfShape, an
//   Expand);
//   * nodes that read a weight which has another use: a second copy would untie it;
//   * DequantizeLinear: its weights are stored quantised on purpose;
//   * random operators, control flow, other domains; Identity and Dropout (remove-dead takes them
//   out);
//   * function bodies, which cannot hold initializers.

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <variant>
#include <vector>

#include "passes/cleanup/edits.h"
#include "passes/cleanup/passes.h"
#include "passes/engine/engine.h"

namespace sparsefuse {
namespace {

// Below this size, constants are indices, shapes and scales: growth and copies do not matter.
constexpr size_t kSmallBytes = 1024;

// Einsum because its result's size is not known beforehand: two vectors can make a matrix.
bool IsNeverFolded(const Node& node) {
  static const std::set<std::string, std::less<>> kOps = {
      "Bernoulli",        "Constant",      "DequantizeLinear", "Dropout",
      "Einsum",           "Identity",      "Multinomial",      "RandomNormal",
      "RandomNormalLike", "RandomUniform", "RandomUniformLike"};
  return !node.domain().empty() || kOps.count(node.op()) > 0;
}

// The attributes of a node in a model of its own; nothing for those that only its graph gives a
// meaning.
std::optional<std::vector<std::pair<std::string, Attribute::Data>>> CopyAttributes(
    const Node& node) {
  std::vector<std::pair<std::string, Attribute::Data>> copies;
  for (const Attribute& attribute : node.attributes()) {
    const bool copied = std::visit(
        [&]<typename T>(const T& data) {
          if constexpr (std::is_copy_constructible_v<T> && !std::is_same_v<T, std::monostate> &&
                        !std::is_same_v<T, AttributeRef> &&
                        !std::is_same_v<T, std::vector<std::unique_ptr<Graph>>>) {
            copies.emplace_back(attribute.name, Attribute::Data(data));
            return true;
          }
          return false;
        },
        attribute.data);
    if (!copied) return std::nullopt;
  }
  return copies;
}

// A value computed here, not (yet) in the model.
struct Known {
  Tensor tensor;
  size_t source_bytes;  // of the constants that it is made from
};

class GraphFolder {
 public:
  GraphFolder(Graph& graph, int64_t max_bytes, const Context& context, PassStats& stats)
      : graph_(graph), max_bytes_(max_bytes), context_(context), stats_(stats) {}

  void Run() {
    for (Node* node : graph_.TopologicalOrder()) {
      if (!IsNeverFolded(*node)) Compute(node);
    }
    Choose();
    Commit();
  }

 private:
  const Tensor* Find(const Value& value) const {
    const auto known = known_.find(&value);
    return known == known_.end() ? value.constant() : &known->second.tensor;
  }

  size_t SourceBytes(const Value& value) const {
    const auto known = known_.find(&value);
    return known == known_.end() ? value.constant()->bytes().size() : known->second.source_bytes;
  }

  // Adds the node's results to known_, if its inputs are known and nothing speaks against it.
  void Compute(Node* node) {
    size_t source_bytes = 0;
    bool any = false;
    for (const Value* input : node->inputs()) {
      if (!input) continue;
      const Tensor* tensor = Find(*input);
      if (!tensor || tensor->dtype() == DType::kString) return;
      source_bytes += SourceBytes(*input);
      any = true;
    }
    if (!any) return;
    if (context_.Excluded(*node)) {
      stats_.Skip(*node, "excluded");
      return;
    }
    for (const Value* input : node->inputs()) {
      if (input && !input->has_single_use() && Find(*input)->bytes().size() >= kSmallBytes) {
        stats_.Skip(*node, fmt::format("its constant input \"{}\" has another use, and stays one",
                                       Printable(input->name())));
        return;
      }
    }
    std::vector<Tensor> results;
    std::string reason;
    try {
      reason = Evaluate(*node, results);
    } catch (const UserError& error) {
      reason = fmt::format("ONNX Runtime cannot compute it: {}", error.what());
    }
    if (!reason.empty()) stats_.Skip(*node, std::move(reason));
    if (results.empty()) return;
    size_t index = 0;
    for (const Value* output : node->outputs()) {
      if (output) known_[output] = {std::move(results.at(index++)), source_bytes};
    }
    computed_.push_back(node);
  }

  // Runs the node as a model of its own. Leaves `results` empty when it cannot be folded; then
  // returns a reason that is worth telling, or nothing.
  std::string Evaluate(const Node& node, std::vector<Tensor>& results) const {
    auto attributes = CopyAttributes(node);
    if (!attributes) return {};
    Model model;
    model.opset_imports[""] = graph_.model()->opset();
    NewNode copy;
    copy.op = node.op();
    copy.attributes = std::move(*attributes);
    for (const Value* input : node.inputs()) {
      copy.inputs.push_back(
          input ? model.graph().AddInitializer(model.graph().FreshName("input"), *Find(*input))
                : nullptr);
    }
    for (const Value* output : node.outputs()) {
      copy.outputs.push_back(output ? model.graph().FreshName("output") : "");
    }
    for (Value* output : model.graph().AddNode(std::move(copy))->outputs()) {
      if (output) model.graph().AddGraphOutput(output);
    }
    const Session session(model, {.threads = 1, .optimize = false});  // for the same bits always
    for (const Port& port : session.outputs()) {
      if (port.type.dtype == DType::kUndefined || port.type.dtype == DType::kString) return {};
      if (IsTooLarge(port.type)) return fmt::format("its result is over {} bytes", max_bytes_);
    }
    results = session.Run({});
    return {};
  }

  bool IsTooLarge(const ValueType& type) const {
    Dims dims;
    for (const auto& dim : type.dims) {
      if (!std::holds_alternative<int64_t>(dim)) return false;
      dims.push_back(std::get<int64_t>(dim));
    }
    const std::optional<int64_t> bytes = ByteCount(type.dtype, dims);
    return !bytes || *bytes > max_bytes_;
  }

  // From users to producers: a node is folded if its results need not be stored (only folded nodes
  // use them) or may be.
  void Choose() {
    for (auto node = computed_.rbegin(); node != computed_.rend(); ++node) {
      size_t stored = 0, source_bytes = 0;
      bool used = false, graph_output = false;
      for (const Value* output : (*node)->outputs()) {
        if (!output) continue;
        used = used || !output->uses().empty();
        graph_output = graph_output || output->is_graph_output();
        source_bytes = known_.at(output).source_bytes;
        if (IsNeeded(*output)) stored += known_.at(output).tensor.bytes().size();
      }
      if (graph_output) {
        stats_.Skip(**node, "its result is a graph output");
      } else if (stored > source_bytes + kSmallBytes) {
        // Of a chain that grows, the end tells enough.
        if (!FeedsComputedOnly(**node)) {
          stats_.Skip(**node, fmt::format("its result takes {} bytes, what it is made from {}",
                                          stored, source_bytes));
        }
      } else if (used) {
        folded_.insert(*node);
      }
    }
  }

  bool IsComputed(const Node& node) const {
    return std::any_of(node.outputs().begin(), node.outputs().end(),
                       [&](const Value* output) { return output && known_.count(output) > 0; });
  }

  bool FeedsComputedOnly(const Node& node) const {
    for (const Value* output : node.outputs()) {
      if (!output) continue;
      for (const Use& use : output->uses()) {
        if (!IsComputed(*use.node)) return false;
      }
    }
    return true;
  }

  // Whether something that stays reads it.
  bool IsNeeded(const Value& value) const {
    return std::any_of(value.uses().begin(), value.uses().end(),
                       [&](const Use& use) { return folded_.count(use.node) == 0; });
  }

  void Commit() {
    std::map<std::string, int64_t> counts;  // by operator
    for (Node* node : computed_) {
      if (folded_.count(node) == 0) continue;
      ++counts[node->op()];
      for (Value* output : node->outputs()) {
        if (!output || !IsNeeded(*output)) continue;
        graph_.ReplaceUses(output, graph_.AddInitializer(graph_.FreshName(output->name()),
                                                         known_.at(output).tensor));
        ++stats_.tensors_rewritten;
      }
    }
    for (auto node = computed_.rbegin(); node != computed_.rend(); ++node) {
      if (folded_.count(*node) == 0) continue;
      const std::vector<Value*> inputs = (*node)->inputs();
      graph_.RemoveNode(*node);
      for (Value* input : std::set<Value*>(inputs.begin(), inputs.end())) RemoveIfUnused(input);
    }
    for (const auto& [op, count] : counts) {
      stats_.changed = true;
      stats_.nodes_removed += count;
      stats_.findings.push_back(Counted(count, op, "computed"));
    }
  }

  Graph& graph_;
  const int64_t max_bytes_;
  const Context& context_;
  PassStats& stats_;
  std::unordered_map<const Value*, Known> known_;
  std::vector<Node*> computed_;  // in topological order
  std::unordered_set<const Node*> folded_;
};

class FoldConstants final : public Pass {
 public:
  explicit FoldConstants(int64_t max_bytes) : max_bytes_(max_bytes) {}

  PassStats Run(Model& model, Context& context) override {
    PassStats stats;
    if (!CanAddInitializers(model, stats)) return stats;
    ForEachGraph(model, [&](Graph& graph) {
      if (!InFunction(graph)) GraphFolder(graph, max_bytes_, context, stats).Run();
    });
    return stats;
  }

 private:
  const int64_t max_bytes_;
};

}  // namespace

const PassInfo kFoldConstants = {.name = "fold-constants",
                                 .summary = "computes nodes whose inputs are all constant",
                                 .exactness = Exactness::kLossless,
                                 .params = {{.name = "max_bytes",
                                             .otherwise = int64_t{256} << 20,
                                             .summary = "results larger than this are not computed",
                                             .min = 0}},
                                 .make = [](const Params& params) -> std::unique_ptr<Pass> {
                                   return std::make_unique<FoldConstants>(params.Int("max_bytes"));
                                 }};

}  // namespace sparsefuse

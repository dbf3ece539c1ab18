// Residual blocks: additions of a tensor and something computed from it that holds weights.

#include <algorithm>
#include <optional>
#include <unordered_map>
#include <unordered_set>

#include "passes/analysis/structure.h"

namespace sparsefuse {
namespace {

class BlockFinder {
 public:
  BlockFinder(const Model& model, const AxisFlow& flow)
      : flow_(flow), order_(model.graph().TopologicalOrder()) {
    for (size_t i = 0; i < order_.size(); ++i) position_.emplace(order_[i], i);
    for (const AxisEvent& event : flow.events) {
      const bool product = event.role == AxisRole::kProduced && !event.node->Is("Gather");
      if (product) products_.insert(event.node);
    }
  }

  std::vector<Block> Find() const {
    std::vector<Block> blocks;
    for (const Node* node : order_) {
      if (!node->Is("Add") || node->inputs().size() != 2) continue;
      for (const size_t kept : {size_t{0}, size_t{1}}) {
        std::optional<Block> block = Try(*node, kept);
        if (!block) continue;
        blocks.push_back(std::move(*block));
        break;
      }
    }
    return blocks;
  }

 private:
  // Both summands have the sum's shape, so that either can stand for it.
  bool SameShape(const Node& add) const {
    const auto sum = flow_.axes.find(add.output(0));
    for (const Value* input : add.inputs()) {
      const auto axes = flow_.axes.find(input);
      if (sum == flow_.axes.end() || axes == flow_.axes.end()) return false;
      if (axes->second.size() != sum->second.size()) return false;
      for (size_t i = 0; i < sum->second.size(); ++i) {
        if (!flow_.atoms.Same(sum->second[i], axes->second[i])) return false;
      }
    }
    return true;
  }

  // Whether `value` is computed from the elements, not merely the shape, of `from`.
  bool DependsOn(const Value* value, const Value* from) const {
    const size_t floor = from->producer() ? position_.at(from->producer()) : 0;
    std::unordered_set<const Node*> seen;
    std::vector<const Value*> open = {value};
    while (!open.empty()) {
      const Value* next = open.back();
      open.pop_back();
      if (next == from) return true;
      const Node* node = next->producer();
      if (!node || node->Is("Shape") || node->Is("Size") || position_.at(node) < floor) continue;
      if (!seen.insert(node).second) continue;
      for (const Value* input : node->inputs()) {
        if (input) open.push_back(input);
      }
    }
    return false;
  }

  // Nodes that compute nothing else than `branch`, which only `add` reads.
  std::unordered_set<const Node*> OnlyFor(const Value* branch, const Node& add) const {
    std::unordered_set<const Node*> dead;
    const auto is_dead = [&](const Node* node) {
      for (const Value* output : node->outputs()) {
        if (!output) continue;
        if (output->is_graph_output()) return false;
        for (const Use& use : output->uses()) {
          const bool here = use.node == &add && output == branch;
          if (!here && !dead.count(use.node)) return false;
        }
      }
      return true;
    };
    for (size_t i = position_.at(&add); i > 0; --i) {
      const Node* node = order_[i - 1];
      if (!node->outputs().empty() && is_dead(node)) dead.insert(node);
    }
    return dead;
  }

  std::optional<Block> Try(const Node& add, size_t kept) const {
    const Value* x = add.input(kept);
    const Value* branch = add.input(1 - kept);
    if (!x || !branch || x == branch || !flow_.dynamic.count(x) || !branch->producer()) {
      return std::nullopt;
    }
    if (branch->uses().size() != 1 || !SameShape(add) || !DependsOn(branch, x)) return std::nullopt;
    const std::unordered_set<const Node*> dead = OnlyFor(branch, add);
    Block block{BlockKind::kFeedForward, &add, kept, {}, 0};
    bool products = false, softmax = false, convolution = false;
    std::unordered_set<const Value*> weights;
    for (const Node* node : order_) {
      if (!dead.count(node)) continue;
      block.removed.push_back(node);
      products = products || products_.count(node) > 0;
      softmax = softmax || node->Is("Softmax");
      convolution = convolution || node->Is("Conv");
      for (const Value* input : node->inputs()) {
        if (input && input->constant()) weights.insert(input);
      }
    }
    if (!products) return std::nullopt;
    for (const Value* weight : weights) {
      const bool own = std::all_of(weight->uses().begin(), weight->uses().end(),
                                   [&](const Use& use) { return dead.count(use.node) > 0; });
      if (own && weight->constant()->rank() > 0 && IsFloating(weight->constant()->dtype())) {
        block.parameters += weight->constant()->size();
      }
    }
    if (convolution) block.kind = BlockKind::kConvolution;
    if (softmax) block.kind = BlockKind::kAttention;
    return block;
  }

  const AxisFlow& flow_;
  std::vector<Node*> order_;
  std::unordered_map<const Node*, size_t> position_;
  std::unordered_set<const Node*> products_;
};

}  // namespace

std::string_view Name(BlockKind kind) {
  switch (kind) {
    case BlockKind::kAttention:
      return "attention";
    case BlockKind::kFeedForward:
      return "feed-forward";
    case BlockKind::kConvolution:
      return "convolution";
  }
  return "";
}

std::vector<Block> FindBlocks(const Model& model, const AxisFlow& flow) {
  return BlockFinder(model, flow).Find();
}

}  // namespace sparsefuse

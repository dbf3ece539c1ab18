#include "passes/prune/block_drop.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <unordered_set>
#include <utility>

#include "passes/prune/removal.h"
#include "passes/statistics/matrix.h"

namespace sparsefuse {
namespace {

// The input that `node` passes on, perhaps times or plus constants; null: it does something else.
const Value* Passes(const Node& node) {
  for (const char* op :
       {"Identity", "Dropout", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Cast"}) {
    if (node.Is(op)) return node.input(0);
  }
  if (node.Is("Mul") || node.Is("Add")) {
    if (node.constant_input(1)) return node.input(0);
    if (node.constant_input(0)) return node.input(1);
  }
  if ((node.Is("Div") || node.Is("Sub")) && node.constant_input(1)) return node.input(0);
  return nullptr;
}

// Products without a module of their own end the way, too.
bool IsProduct(const Node& node) {
  return node.Is("MatMul") || node.Is("Gemm") || node.Is("Conv") || node.Is("ConvTranspose");
}

bool AllRowsAreUnits(const Consumer& consumer) {
  return std::none_of(consumer.unit_of.begin(), consumer.unit_of.end(),
                      [](int64_t unit) { return unit < 0; });
}

class DroppableFinder {
 public:
  DroppableFinder(const Context& context, std::vector<Prunable>& modules) : context_(context) {
    for (Prunable& prunable : modules) {
      for (const Consumer& consumer : prunable.consumers) {
        owners_[consumer.matrix.output].push_back(&prunable);
      }
    }
  }

  // Empty if the block has found its module.
  std::string Settle(const Block& block) const {
    for (const Node* node : block.removed) {
      if (context_.Excluded(*node)) {
        return fmt::format("{} in it is excluded by the configuration", node->Describe());
      }
    }
    const Value* end = block.add->input(1 - block.kept_input);
    while (!owners_.count(end)) {
      const Node* node = end->producer();
      if (!node || IsProduct(*node)) return "its last product sums over nothing that can go";
      const Value* before = Passes(*node);
      if (!before)
        return fmt::format("{} stands between its last product and the sum", node->Describe());
      end = before;
    }
    std::string reason;
    for (Prunable* owner : owners_.at(end)) {
      reason = Refusal(*owner);
      if (!reason.empty()) continue;
      owner->block = &block;
      break;
    }
    return reason;
  }

 private:
  std::string Refusal(const Prunable& owner) const {
    if (!owner.reason.empty()) return fmt::format("{}: {}", owner.name, owner.reason);
    if (owner.consumers.size() != 1) {
      return fmt::format("its {} are summed over in {} places", owner.name, owner.consumers.size());
    }
    if (!AllRowsAreUnits(owner.consumers[0])) {
      return fmt::format("its last product sums over more than {}", owner.name);
    }
    if (owner.block) return "two sums end in one product";
    return "";
  }

  const Context& context_;
  std::map<const Value*, std::vector<Prunable*>> owners_;  // by a consumer's output
};

bool Holds(const Block& block, const Module& module) {
  const std::unordered_set<const Node*> inside(block.removed.begin(), block.removed.end());
  // The width of queries and keys is summed over between activations alone.
  const auto& nodes = module.consumers.empty() ? module.producers : module.consumers;
  return !nodes.empty() && std::all_of(nodes.begin(), nodes.end(),
                                       [&](const Node* node) { return inside.count(node) > 0; });
}

}  // namespace

std::vector<KeptBlock> FindDroppable(const Structure& structure, const Context& context,
                                     std::vector<Prunable>& modules) {
  const DroppableFinder finder(context, modules);
  std::vector<KeptBlock> kept;
  for (const Block& block : structure.blocks) {
    std::string reason = finder.Settle(block);
    if (!reason.empty()) kept.push_back({&block, std::move(reason)});
  }
  return kept;
}

const Block* GoneBlock(const Choice& choice) {
  return choice.kept.empty() ? choice.prunable->block : nullptr;
}

bool GoesWithBlock(const Module& module, const std::vector<Choice>& choices) {
  return std::any_of(choices.begin(), choices.end(), [&](const Choice& choice) {
    const Block* block = GoneBlock(choice);
    return block && choice.prunable->module != &module && Holds(*block, module);
  });
}

void EraseInside(std::vector<Choice>& choices) {
  const std::vector<Choice> all = choices;
  std::erase_if(choices,
                [&](const Choice& choice) { return GoesWithBlock(*choice.prunable->module, all); });
}

std::optional<Tensor> Row(const Tensor& values) {
  const std::vector<float> numbers = values.ToFloats();
  const Dims& dims = values.dims();
  size_t inner = numbers.size();
  std::optional<size_t> axis;
  size_t stride = 1;
  for (size_t a = 0; a < dims.size() && inner > 0; ++a) {
    const auto length = static_cast<size_t>(dims[a]);
    inner /= length;
    bool varies = false;
    for (size_t i = 0; i < numbers.size() && !varies; ++i) {
      const size_t at = i / inner % length;
      varies = numbers[i] != numbers[i - at * inner];
    }
    if (!varies) continue;
    if (axis) return std::nullopt;
    axis = a;
    stride = inner;
  }
  if (numbers.empty()) return std::nullopt;
  Dims row = {};
  if (axis) {
    row.assign(dims.size() - *axis, 1);
    row[0] = dims[*axis];
  }
  std::vector<double> kept;
  for (int64_t i = 0; i < (axis ? row[0] : 1); ++i) {
    kept.push_back(numbers[static_cast<size_t>(i) * stride]);
  }
  return ToTensor(values.dtype(), std::move(row), kept);
}

bool DropBlock(Model& removed, const Block& block, const Tensor& branch) {
  const std::optional<Tensor> constant = Row(branch);
  if (!constant) return false;
  const std::vector<float> numbers = constant->ToFloats();
  const bool zero = std::all_of(numbers.begin(), numbers.end(), [](float x) { return x == 0; });
  RemoveBlock(removed, block, zero ? nullptr : &*constant);
  return true;
}

}  // namespace sparsefuse

#include "tests/unit/prune/removing.h"

#include <algorithm>
#include <map>
#include <numeric>
#include <string>

#include "onnx_io/reader.h"
#include "onnx_io/writer.h"
#include "passes/data/random.h"
#include "passes/lower/builder.h"
#include "tests/support/catch.h"
#include "tests/support/support.h"

namespace sparsefuse::test {
namespace {

constexpr double kTolerance = 1e-4;

// Whether the file that comes of it is the same model.
void CheckWritable(const Model& model, const Feeds& feeds) {
  const TempDir folder;
  WriteModel(model, folder / "removed.onnx");
  CHECK(RemovalError(model, ReadModel(folder / "removed.onnx"), feeds, {}) == 0);
}

// With one module alone; a tensor with two axes of it shrinks by a square.
bool CountsPerUnit(std::span<const Keep> keeps) {
  if (keeps.size() != 1) return false;
  std::map<const Value*, int> axes;
  for (const ModuleAxis& axis : keeps[0].module->axes) ++axes[axis.tensor];
  return std::all_of(axes.begin(), axes.end(), [](const auto& entry) { return entry.second == 1; });
}

}  // namespace

Feeds RandomFeeds(const Model& model, uint64_t seed) {
  Feeds feeds;
  std::map<std::string, int64_t> open;
  uint64_t counter = 0;
  for (const Value* input : model.graph().inputs()) {
    if (input->is_initializer()) continue;
    Dims dims;
    for (const auto& dim : input->type()->dims) {
      const auto* name = std::get_if<std::string>(&dim);
      dims.push_back(name ? open.emplace(*name, 2 + static_cast<int64_t>(open.size())).first->second
                          : std::get<int64_t>(dim));
    }
    const auto count = static_cast<size_t>(ElementCount(dims).value());
    if (input->type()->dtype == DType::kInt64) {
      std::vector<int64_t> values(count);
      for (int64_t& value : values) {
        value = static_cast<int64_t>(Below(RandomAt(seed, counter++), 3));
      }
      feeds.emplace_back(input->name(), Tensor::Of<int64_t>(dims, values));
    } else {
      std::vector<float> values(count);
      for (float& value : values) {
        value = static_cast<float>(RandomAt(seed, counter++) >> 40) * 0x1p-23F - 1;
      }
      feeds.emplace_back(input->name(), Tensor::Of<float>(dims, values));
    }
  }
  return feeds;
}

std::vector<int64_t> Drawn(int64_t units, int64_t count, uint64_t seed) {
  std::vector<int64_t> all(static_cast<size_t>(units));
  std::iota(all.begin(), all.end(), 0);
  for (size_t i = 0; i < all.size(); ++i) {
    std::swap(all[i], all[i + Below(RandomAt(seed, i), all.size() - i)]);
  }
  all.resize(static_cast<size_t>(count));
  std::sort(all.begin(), all.end());
  return all;
}

int64_t Parameters(const Model& model) {
  std::map<const Value*, int64_t> sizes;
  for (const Node* node : model.graph().Nodes()) {
    for (const Value* input : node->inputs()) {
      const Tensor* tensor = input ? input->constant() : nullptr;
      if (!tensor || tensor->dtype() == DType::kBool) continue;
      if (IsFloating(tensor->dtype()) || DTypeBits(tensor->dtype()) <= 8) {
        sizes[input] = tensor->size();
      }
    }
  }
  int64_t sum = 0;
  for (const auto& [value, size] : sizes) sum += size;
  return sum;
}

Model CheckUnits(const Model& model, std::span<const Keep> keeps, const Feeds& feeds) {
  Model masked = model.Clone(), removed = model.Clone();
  MaskUnits(masked, keeps);
  RemoveUnits(removed, keeps);
  Verify(masked);
  Verify(removed);
  CHECK(RemovalError(model, masked, feeds, {}) > 10 * kTolerance);
  CHECK(RemovalError(masked, removed, feeds, {}) <= kTolerance);
  CheckWritable(removed, feeds);
  const int64_t less = Parameters(model) - Parameters(removed);
  CHECK(less > 0);
  if (CountsPerUnit(keeps)) {
    const Module& module = *keeps[0].module;
    const int64_t gone = module.units - static_cast<int64_t>(keeps[0].units.size());
    CHECK(less == gone * module.parameters_per_unit);
  }
  return removed;
}

Model CheckBlocks(const Model& model, std::span<const Block* const> blocks, const Feeds& feeds) {
  Model masked = model.Clone(), removed = model.Clone();
  int64_t parameters = 0;
  for (const Block* block : blocks) {
    Graph& graph = masked.graph();
    Node* add = graph.FindValue(block->add->output(0)->name())->producer();
    Builder builder(graph);
    builder.InsertBefore(add);
    const size_t branch = 1 - block->kept_input;
    graph.SetInput(add, branch, builder.Op("Mul", {add->input(branch), builder.Float(0)}));
    RemoveBlock(removed, *block);
    parameters += block->parameters;
  }
  Verify(removed);
  CHECK(RemovalError(model, masked, feeds, {}) > 10 * kTolerance);
  CHECK(RemovalError(masked, removed, feeds, {}) <= kTolerance);
  CheckWritable(removed, feeds);
  CHECK(Parameters(removed) <= Parameters(model) - parameters);
  for (const Block* block : blocks) {
    const bool stays =
        std::any_of(block->removed.begin(), block->removed.end(), [&](const Node* node) {
          return removed.graph().FindValue(node->output(0)->name()) != nullptr;
        });
    CHECK_FALSE(stays);
  }
  return removed;
}

std::vector<const Block*> Outermost(const std::vector<Block>& blocks) {
  std::vector<const Block*> outer;
  for (const Block& block : blocks) {
    const bool inside = std::any_of(blocks.begin(), blocks.end(), [&](const Block& other) {
      return std::find(other.removed.begin(), other.removed.end(), block.add) !=
             other.removed.end();
    });
    if (!inside) outer.push_back(&block);
  }
  return outer;
}

}  // namespace sparsefuse::test

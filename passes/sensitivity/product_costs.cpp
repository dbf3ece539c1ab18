#include "passes/sensitivity/product_costs.h"

#include <algorithm>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "passes/engine/engine.h"
#include "passes/lower/builder.h"

namespace sparsefuse {
namespace {

// The constant behind a product's weight input, perhaps through a Transpose.
const Value* WeightOf(const Node& node) {
  if (!node.Is("MatMul") && !node.Is("Gemm") && !node.Is("Conv") && !node.Is("ConvTranspose")) {
    return nullptr;
  }
  for (const Value* input : {node.input(1), node.input(0)}) {
    const Value* value = input;
    while (value && value->producer() && value->producer()->Is("Transpose")) {
      value = value->producer()->input(0);
    }
    if (value && value->constant() && IsFloating(value->constant()->dtype())) return value;
  }
  return nullptr;
}

}  // namespace

ProductCosts::ProductCosts(const Model& model, Unit unit, const Context& context) : unit_(unit) {
  std::vector<const Node*> products;
  for (const Node* node : model.graph().TopologicalOrder()) {
    if (WeightOf(*node)) products.push_back(node);
  }
  std::vector<double> runs(products.size(), 1);  // multiply-adds an element of the weight
  if (unit == Unit::kFlops) {
    Model probe = model.Clone();
    Builder builder(probe.graph());
    std::vector<std::string> shapes;
    for (const Node* node : products) {
      Value* shape = builder.Op("Shape", {probe.graph().FindValue(node->output(0)->name())});
      shapes.push_back(shape->name());
    }
    const Session session(WithOutputs(probe, shapes), {.threads = context.threads});
    const Dataset& data = *context.calibration;
    const std::vector<int64_t> samples(
        static_cast<size_t>(std::max<int64_t>(1, data.fixed_batch())), 0);
    const std::vector<Tensor> results = session.Run(data.Gather(samples), shapes);
    for (size_t i = 0; i < products.size(); ++i) {
      const Dims dims = results[i].ToInts();
      const bool image = products[i]->Is("Conv") || products[i]->Is("ConvTranspose");
      const int64_t outputs = image ? dims[1] : dims.back();
      runs[i] = static_cast<double>(*ElementCount(dims)) / static_cast<double>(outputs) /
                static_cast<double>(samples.size());
    }
  }
  std::set<const Value*> seen;
  for (size_t i = 0; i < products.size(); ++i) {
    const Value* weight = WeightOf(*products[i]);
    const bool counts = seen.insert(weight).second || unit == Unit::kFlops;
    const double cost = counts ? runs[i] * static_cast<double>(weight->constant()->size()) : 0;
    products_.push_back({products[i], weight, cost});
    total_ += cost;
  }
}

double ProductCosts::Of(std::span<const Prunable* const> modules) const {
  std::set<const Value*> weights;
  std::set<const Node*> nodes;
  for (const Prunable* prunable : modules) {
    for (const ModuleAxis& axis : prunable->module->axes) weights.insert(axis.tensor);
    if (!prunable->block) continue;
    nodes.insert(prunable->block->removed.begin(), prunable->block->removed.end());
  }
  double sum = 0;
  for (const Product& product : products_) {
    if (weights.count(product.weight) || nodes.count(product.node)) sum += product.cost;
  }
  return sum;
}

double ProductCosts::Saved(std::span<const Keep> keeps, std::span<const Block* const> gone) const {
  // Positions that stay, of each axis of each weight: several modules can run through one axis.
  std::map<std::pair<const Value*, size_t>, std::vector<bool>> stays;
  for (const Keep& keep : keeps) {
    for (const ModuleAxis& axis : keep.module->axes) {
      std::vector<bool>& positions = stays[{axis.tensor, axis.axis}];
      positions.resize(axis.unit_of.size(), true);
      for (size_t i = 0; i < positions.size(); ++i) {
        const int64_t unit = axis.unit_of[i];
        if (unit >= 0 && !std::binary_search(keep.units.begin(), keep.units.end(), unit)) {
          positions[i] = false;
        }
      }
    }
  }
  std::map<const Value*, double> left;
  for (const auto& [key, positions] : stays) {
    const auto share = static_cast<double>(std::count(positions.begin(), positions.end(), true)) /
                       static_cast<double>(positions.size());
    left.try_emplace(key.first, 1.0).first->second *= share;
  }
  std::set<const Node*> nodes;
  for (const Block* block : gone) nodes.insert(block->removed.begin(), block->removed.end());
  std::set<const Value*> read;  // by a product that stays
  for (const Product& product : products_) {
    if (!nodes.count(product.node)) read.insert(product.weight);
  }
  double saved = 0;
  for (const Product& product : products_) {
    const bool goes =
        unit_ == Unit::kFlops ? nodes.count(product.node) > 0 : !read.count(product.weight);
    const auto share = left.find(product.weight);
    saved += product.cost * (goes ? 1 : share == left.end() ? 0 : 1 - share->second);
  }
  return saved;
}

}  // namespace sparsefuse

#include "passes/quantize/convolution_variants.h"

#include <algorithm>

namespace sparsefuse {
namespace {

constexpr int64_t kDenseProducts = 64;

bool IsDepthwise(const Node& conv) {
  return conv.GetInt("group", 1) > 1 && conv.constant_input(1)->dims()[1] == 1;
}

int64_t ProductsASum(const Node& conv) {
  const Tensor& weight = *conv.constant_input(1);
  return weight.size() / weight.dims()[0];
}

// What a plan codes, as keys: equal for variants that come to the same.
std::set<std::string> CodedKeys(const ConvolutionPlan& plan) {
  std::set<std::string> keys;
  for (const CodedNode& node : plan.nodes) keys.insert(KeyOf(*node.node));
  return keys;
}

}  // namespace

std::vector<ConvolutionVariant> ListVariants(Graph& graph, const Context& context,
                                             const std::set<std::string>& always_float) {
  const ConvolutionPlan all = PlanConvolutions(graph, context, always_float);
  std::vector<const CodedNode*> convolutions;
  size_t last = 0;
  bool can_pad = false;
  for (size_t i = 0; i < all.nodes.size(); ++i) {
    if (!all.nodes[i].node->Is("Conv")) continue;
    convolutions.push_back(&all.nodes[i]);
    last = i;
    can_pad = can_pad || CanPadChannels(all, all.nodes[i]);
  }
  std::vector<ConvolutionVariant> variants;
  std::set<std::set<std::string>> seen;
  const auto add = [&](std::string name, std::set<std::string> keep_float) {
    keep_float.insert(always_float.begin(), always_float.end());
    const std::set<std::string> keys = CodedKeys(PlanConvolutions(graph, context, keep_float));
    if (!keys.empty() && seen.insert(keys).second) {
      variants.push_back({std::move(name), std::move(keep_float)});
    }
  };
  if (convolutions.empty()) return variants;

  add("all", {});
  if (can_pad) variants.push_back({"padded", always_float, true});
  std::set<std::string> first, depthwise, thin;
  first.insert(KeyOf(*convolutions.front()->node));
  add("first-float", first);
  std::set<std::string> ends = first;
  for (size_t i = last + 1; i < all.nodes.size(); ++i) ends.insert(KeyOf(*all.nodes[i].node));
  for (const CodedNode* conv : convolutions) {
    const std::string key = KeyOf(*conv->node);
    if (IsDepthwise(*conv->node)) depthwise.insert(key);
    if (IsDepthwise(*conv->node) || ProductsASum(*conv->node) < kDenseProducts) thin.insert(key);
  }
  add("ends-float", ends);
  add("depthwise-float", depthwise);
  add("dense", thin);
  return variants;
}

}  // namespace sparsefuse

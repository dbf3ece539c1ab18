// The one table of passes. A new pass adds its declaration and its line.

#include <algorithm>

#include "passes/cleanup/passes.h"
#include "passes/framework/pass.h"

namespace sparsefuse {

extern const PassInfo kPrune;
extern const PassInfo kQuantize;
extern const PassInfo kSensitivity;
extern const PassInfo kSparsify;

const std::vector<const PassInfo*>& AllPasses() {
  static const std::vector<const PassInfo*> passes = {
      &kRaiseOpset, &kDecompose,   &kFoldConstants, &kFoldBatchNorm, &kFoldMasks,
      &kRemoveDead, &kSensitivity, &kPrune,         &kSparsify,      &kQuantize};
  return passes;
}

const PassInfo* FindPass(std::string_view name) {
  const auto& all = AllPasses();
  const auto found = std::find_if(all.begin(), all.end(),
                                  [&](const PassInfo* pass) { return pass->name == name; });
  return found == all.end() ? nullptr : *found;
}

}  // namespace sparsefuse

// Which operators of the default domain we know how to carry from one operator-set version to a
// later one: ours, because ONNX's own converter copies models and covers fewer operators.

#ifndef SPARSEFUSE_PASSES_CLEANUP_OPSET_TABLE_H_
#define SPARSEFUSE_PASSES_CLEANUP_OPSET_TABLE_H_

#include <cstdint>
#include <string_view>
#include <vector>

#include "passes/cleanup/opset_rules.h"

namespace sparsefuse {

// The table is complete for models of kOldestOpset and for targets up to kNewestOpset: an operator
// in it changed its meaning between the two only where OpsetSteps says so. All other changes of
// definition added types, or attributes and inputs whose default is the old behaviour.
inline constexpr int64_t kOldestOpset = 7;
inline constexpr int64_t kNewestOpset = 21;

bool IsInOpsetTable(std::string_view op);

struct OpsetStep {
  std::string_view op;
  int64_t version;  // the first version with the changed definition
  OpsetRule rule;
};

// The steps of `op` above version `from`, up to `to`, ascending. A rule that replaces its node is
// the last of its operator.
std::vector<OpsetStep> OpsetSteps(std::string_view op, int64_t from, int64_t to);

// The IR version that came with this opset (18…21), the least that a model of it may have.
int64_t MinIrVersion(int64_t opset);

}  // namespace sparsefuse

#endif  // SPARSEFUSE_PASSES_CLEANUP_OPSET_TABLE_H_

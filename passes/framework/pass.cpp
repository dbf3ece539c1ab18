#include "passes/framework/pass.h"

namespace sparsefuse {
namespace {

// The name under which a node is reported: a nameless one by its first output.
std::string Subject(const Node& node) {
  if (!node.name().empty()) return node.name();
  for (const Value* output : node.outputs()) {
    if (output) return output->name();
  }
  return "";
}

}  // namespace

void PassStats::Done(const Node& node, std::string action, double error) {
  changed = true;
  findings.push_back({Subject(node), node.op(), std::move(action), "", error});
}

void PassStats::Skip(const Node& node, std::string reason) {
  findings.push_back({Subject(node), node.op(), "", std::move(reason), -1});
}

}  // namespace sparsefuse

// What of a model can be removed in whole units: attention heads, neurons, channels, residual
// blocks; and why every other dimension of a weight must stay. Found from the axes alone.

#ifndef SPARSEFUSE_PASSES_ANALYSIS_STRUCTURE_H_
#define SPARSEFUSE_PASSES_ANALYSIS_STRUCTURE_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "onnx_io/model.h"
#include "passes/analysis/axis_flow.h"

namespace sparsefuse {

enum class ModuleKind {
  kHeads,          // attention heads
  kKvGroups,       // grouped-query attention: a key-value head with all its query heads
  kQueryHeads,     // the same number of query heads in every group
  kHeadWidthQk,    // inner width of queries and keys, the same in every head
  kHeadWidthV,     // inner width of values
  kNeurons,        // between two linear layers
  kChannels,       // of convolutions
  kChannelGroups,  // whole groups of grouped convolutions
};

// "attention heads", …
std::string_view Name(ModuleKind kind);

// A weight (or other constant) that the module's units run through.
struct ModuleAxis {
  const Value* tensor;
  size_t axis;
  // For each position along the axis the unit that it goes with, or −1: it stays.
  std::vector<int64_t> unit_of;
};

// A number in the model that says how large an axis is. New value: the count of positions that
// stay (negated if `from_end`). Where it stands: see SizeUse.
struct ModuleSize {
  SizeUse use;
  std::vector<int64_t> unit_of;
};

// An operand of a product that sums over the module's units: with zeros at a unit's positions the
// unit has no part in the result.
struct ModuleRead {
  const Node* node;
  size_t input;
  size_t axis, rank;             // of the operand
  std::vector<int64_t> unit_of;  // as ModuleAxis
};

// One atom and everything it runs through: its units are removed from all of these together.
struct Module {
  ModuleKind kind;
  int64_t units;
  // Elements of weights that go with one unit, when it is removed alone.
  int64_t parameters_per_unit;
  std::vector<ModuleAxis> axes;
  std::vector<ModuleSize> sizes;
  std::vector<const Node*> producers, consumers;  // products with weights, in topological order
  // The consumers' activations, and one of two activations that are summed over in a product: what
  // has to be switched off to switch a unit off.
  std::vector<ModuleRead> reads;
  bool residual = false;  // carried past layers by additions: removing a unit touches all of them
  // Why it is left alone unless a configuration names it; empty: it is pruned by default.
  std::string reason;
};

// What stays of one module.
struct Keep {
  const Module* module;
  std::vector<int64_t> units;  // ascending, at least one
};

enum class BlockKind { kAttention, kFeedForward, kConvolution };
std::string_view Name(BlockKind kind);

// y = x + f(x), where f can go: y becomes x.
struct Block {
  BlockKind kind;
  const Node* add;
  size_t kept_input;                 // of add: x
  std::vector<const Node*> removed;  // f, in topological order; nothing else reads them
  int64_t parameters;                // elements of the weights that only f reads
};

// Dimensions that stay, by size and reason.
struct FrozenAxes {
  int64_t size;
  std::string reason;
  int64_t weights;  // tensors that have it
  const Value* example;
};

struct Structure {
  std::vector<Module> modules;  // in topological order of their first producer
  std::vector<Block> blocks;    // in topological order
  std::vector<FrozenAxes> frozen;
};

// The main graph only. `model` must outlive the result.
Structure FindStructure(const Model& model);

// Part of FindStructure.
std::vector<Block> FindBlocks(const Model& model, const AxisFlow& flow);

}  // namespace sparsefuse

#endif  // SPARSEFUSE_PASSES_ANALYSIS_STRUCTURE_H_

// Removal judged by ONNX Runtime: the model with units masked, and the model without them.

#ifndef SPARSEFUSE_TESTS_UNIT_PRUNE_REMOVING_H_
#define SPARSEFUSE_TESTS_UNIT_PRUNE_REMOVING_H_

#include <cstdint>
#include <span>
#include <vector>

#include "passes/prune/removal.h"

namespace sparsefuse::test {

// Arrays for the graph inputs: open dimensions 2, 3, … by name, floats in [−1, 1), integers in
// [0, 3).
Feeds RandomFeeds(const Model& model, uint64_t seed);

// `count` of `units`, drawn, ascending.
std::vector<int64_t> Drawn(int64_t units, int64_t count, uint64_t seed);

// Elements of constants that are floating-point or codes of at most 8 bits.
int64_t Parameters(const Model& model);

// Masks and removes; checks that the results agree within 1e-4, that the masks changed something,
// that the removed model holds, is written and read, and has as many parameters less as it should
// when one module alone was cut. Returns the removed model.
Model CheckUnits(const Model& model, std::span<const Keep> keeps, const Feeds& feeds);

// The same for blocks, whose branches the judge multiplies by zero.
Model CheckBlocks(const Model& model, std::span<const Block* const> blocks, const Feeds& feeds);

// The blocks that lie in no other one.
std::vector<const Block*> Outermost(const std::vector<Block>& blocks);

}  // namespace sparsefuse::test

#endif  // SPARSEFUSE_TESTS_UNIT_PRUNE_REMOVING_H_
